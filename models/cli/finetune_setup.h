// Flags of te finetune turned into options, each checked.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/checkpoint/tensor_file.h"
#include "models/cli/finetune.h"
#include "models/llama/training_step.h"
#include "models/quantization/fp8_options.h"
#include "models/train/trainer.h"

namespace te {

struct FinetuneSetup {
  LlamaModelOptions model;
  AdamWOptions adamw;
  LlamaTrainingStepOptions step;  // the recipe needs the model: it comes later
  std::optional<Fp8Plan> fp8;     // of --precision fp8
  TrainerOptions trainer;
  float max_grad_norm = 0;  // 0: no clipping
  std::optional<StoredType> save_type;
  int64_t max_shard_bytes = 0;
};

// kInvalidArgument names the flag, its value and what was expected; also for a flag that would have
// no effect.
StatusOr<FinetuneSetup> CheckFinetuneFlags(const FinetuneFlags& flags);

// Clears requires_grad of the parameters whose tensors all match one of the patterns (fnmatch over
// Hugging Face's names) and returns how many tensors that are. kInvalidArgument: a pattern that
// matches nothing, one that matches a part of a fused parameter, nothing left to train.
StatusOr<int64_t> FreezeParameters(LlamaModel* model, const std::vector<std::string>& patterns);

}  // namespace te
