// te finetune: a checkpoint and a data file in, a checkpoint out.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/cli/exit_code.h"
#include "models/cli/open_model.h"
#include "models/quantization/fp8_options.h"

namespace te {

// As the flags give them; names are checked by Finetune.
struct FinetuneFlags {
  ModelFlags model;
  std::vector<std::string> freeze;  // glob patterns of Hugging Face names

  std::string data;
  std::string data_format;  // empty: by what it begins with
  std::string text_field = "text";
  int64_t max_seq_length = 256;
  int64_t batch_size = 8;
  bool shuffle = false;

  int64_t steps = 15;
  int64_t untimed_steps = 5;
  int64_t gradient_accumulation_steps = 1;
  double learning_rate = 1.41e-5;
  std::string lr_scheduler = "linear";
  int64_t warmup_steps = 100;
  double max_grad_norm = 0;
  double weight_decay = 0.01;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  std::string recompute = "none";
  std::optional<int64_t> recompute_num_layers;  // absent: all

  std::string precision = "bf16";
  std::string path = "te";
  std::string master_weights;  // empty: none
  std::string moments;         // empty: the precision
  std::string rounding;        // empty: stochastic where anything is stored in bf16
  Fp8Options fp8;

  std::string output;
  bool save_optimizer_state = false;
  int64_t save_every = 0;  // steps; 0: at the end alone
  bool resume = false;     // of the run that wrote model.directory
  std::string max_shard_size = "5GB";
  std::string save_dtype;  // empty: as the checkpoint stores each tensor
  bool allow_nonfinite = false;
  std::string log;
};

// Returns kExitOk or kExitInterrupted.
StatusOr<ExitCode> Finetune(const FinetuneFlags& flags);

}  // namespace te
