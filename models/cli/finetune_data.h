// The training data of te finetune: file, tokenizer, order of samples.
#pragma once

#include <cstdint>
#include <memory>

#include "models/cli/finetune.h"
#include "models/cli/open_model.h"
#include "models/data/batch.h"
#include "models/data/dataset.h"
#include "models/data/sampler.h"
#include "models/tokenizer/tokenizer.h"

namespace te {

struct TrainingData {
  DataFormat format = DataFormat::kText;
  std::unique_ptr<Tokenizer> tokenizer;  // null: the file holds ids
  std::unique_ptr<Dataset> dataset;
  std::unique_ptr<BatchSampler> sampler;
  CollateOptions collate;
  uint64_t input_bytes = 0;

  // Micro-batch `index` of the run.
  StatusOr<Batch> At(int64_t index);
};

// --data, opened once for the whole run, and its format: --data-format, or by what it begins with.
struct OpenedData {
  DataInput input;
  DataFormat format = DataFormat::kText;
};
StatusOr<OpenedData> OpenData(const FinetuneFlags& flags);

// Reads the data and tokenizes what the steps from `first_step` on will see: that stays out of the
// timing, and errors in it are found before the first step. Errors name flag or file.
StatusOr<TrainingData> ReadTrainingData(const FinetuneFlags& flags, OpenedData input,
                                        const OpenedModel& opened, int64_t first_step);
// What will be trained on, and warnings about it.
void PrintData(const FinetuneFlags& flags, const TrainingData& data, const LlamaConfig& config);

}  // namespace te
