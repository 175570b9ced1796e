// --precision and the FP8 flags: from names to a recipe that a model's layers can run by, with its
// saved state.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "models/cli/open_model.h"
#include "models/quantization/fp8_options.h"
#include "models/quantization/fp8_state_file.h"

namespace te {

// Sets params_dtype and path; the plan of --precision fp8, which stores as bf16. kInvalidArgument:
// an unknown name, FP8 flags without --precision fp8, --path hf with it.
StatusOr<std::optional<Fp8Plan>> ParseComputeFlags(const std::string& precision,
                                                   const std::string& path,
                                                   const Fp8Options& options,
                                                   LlamaModelOptions* model);

enum class LowPrecisionUse { kTraining, kEvaluation };

// Must outlive the context, which knows the recipe by its address.
struct LowPrecision {
  std::unique_ptr<Recipe> recipe;  // null: none
  Fp8State state;                  // what the checkpoint's state file has for the recipe
  std::string state_file;          // empty: none was read
  Fp8StateFit fit;
  int calibration_steps = 0;

  // "checkpoint/te_fp8_state.safetensors: 24 tensors, no calibration".
  std::string DescribeState() const;
};

// OpenModel, with the recipe of its modules where there is a plan. The state beside the weights is
// handed to the context first, if the recipe scales by history. (Not with --init-from-config or
// --variant: the state is that of other weights.) Evaluation has no way to calibrate: without a
// complete state it is kInvalidArgument. With Fp8Plan::weights_only the weights are read into FP8
// alone.
StatusOr<OpenedModel> OpenModelWithPrecision(const ModelFlags& flags,
                                             const LlamaModelOptions& options,
                                             const std::optional<Fp8Plan>& plan,
                                             LowPrecisionUse use, LowPrecision* fp8);

// A scope of evaluation by the recipe; none for null.
class EvaluationScope {
 public:
  EvaluationScope(Context* context, const Recipe* recipe);
  ~EvaluationScope();
  EvaluationScope(const EvaluationScope&) = delete;
  EvaluationScope& operator=(const EvaluationScope&) = delete;

 private:
  Context* context_;  // null: no scope
};

}  // namespace te
