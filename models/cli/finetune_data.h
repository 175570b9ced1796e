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

  // Micro-batch `index` of the run.
  StatusOr<Batch> At(int64_t index);
};

// Opens --data and tokenizes what the steps from `first_step` on will see: that stays out of the
// timing, and errors in it are found before the first step. Errors name flag or file.
StatusOr<TrainingData> OpenTrainingData(const FinetuneFlags& flags, const OpenedModel& opened,
                                        int64_t first_step);
void PrintData(const FinetuneFlags& flags, const TrainingData& data);

}  // namespace te
