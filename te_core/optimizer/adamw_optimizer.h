// AdamW over a model's parameters (te_kernels/adamw has the equation). The step's numbers stay on
// the device: the host writes the learning rate and reads nothing.
//
//   optimizer->BeginStep();  forward and backward of every micro-batch;
//   optimizer->Step({.learning_rate = lr});
// Gradients are sums over tokens (and micro-batches); StepScalars::token_count, which the loss
// accumulates, divides once. Over the ranks of groups.data_context, which begin with equal
// parameters, gradients, loss and count of tokens are summed first: every rank makes the same
// update.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "te_core/context.h"
#include "te_core/parameter.h"
#include "te_kernels/adamw/adamw.h"

namespace te {

enum class MasterWeights : int32_t {
  kNone = 0,  // bfloat16 and FP8 parameters are updated in place
  kFloat32 =
      1,  // a float32 copy is updated and rounded into them (float32 parameters need and get none)
};

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
  DType moments = DType::kFloat32;  // or kBFloat16
  MasterWeights master_weights = MasterWeights::kNone;
  Rounding rounding = Rounding::kNearest;  // of every bfloat16 and FP8 store: parameters, moments
};

// Thread-compatible. The context and the parameters must outlive it.
class AdamWOptimizer {
 public:
  // What the optimizer keeps for one parameter.
  struct State {
    Parameter* parameter = nullptr;
    Tensor m;
    Tensor v;
    Tensor master;  // undefined where there is none
    uint32_t random_stream = 0;
  };
  // One tensor of it under its name: parameter->name + ".exp_avg", ".exp_avg_sq", ".master"
  // (torch's names). A parameter's name is unique within its layer; writers of checkpoints put the
  // layer's full name before it.
  struct StateTensor {
    std::string name;
    Parameter* parameter = nullptr;
    TensorView value;
  };

  struct StepInputs {
    float learning_rate = 0;
    float max_grad_norm = 0;      // 0: no clipping
    bool want_grad_norm = false;  // StepScalars::grad_square_sum is computed without clipping, too
                                  // (GradNorm() reads it)
    bool needs_grad_norm() const { return want_grad_norm || max_grad_norm > 0; }
  };

  // StepScalars::grad_square_sum in RunStep: each gradient's sum of squares has a place of its own,
  // and the places are added in their order at the end, so that the time of a sum changes no bit.
  enum class GradSquares { kNone, kMake, kMade };

  // Parameters without requires_grad are left out; float32, bfloat16 and FP8 alone
  // (fp8_only_weight.h; without master weights) are taken. Moments start at zero, masters as
  // copies. kInvalidArgument names option or parameter; kUnsupported a group over which weights are
  // divided (tensor, pipeline, expert, expert_tensor).
  static StatusOr<std::unique_ptr<AdamWOptimizer>> Create(Context* context,
                                                          const std::vector<Parameter*>& parameters,
                                                          const AdamWOptions& options);

  // Before the first micro-batch: loss_sum, token_count and grad_square_sum become 0.
  Status BeginStep();
  // After the last backward pass. Without counted tokens (token_count == 0) nothing changes but
  // StepScalars::skip, which becomes 1. Every trained parameter needs its gradient
  // (Layer::EnsureGradients), or kFailedPrecondition names it and nothing changes. Bumps every
  // trained parameter's version. StepScalars keep the loss and the count until the next BeginStep.
  Status Step(const StepInputs& inputs);

  // Step in two halves: what the host writes, and device work alone, which can be recorded.
  Status SetLearningRate(float learning_rate);
  Status RunStep(float max_grad_norm, GradSquares squares);

  // A GradientReady whose sum of squares a later RunStep finds made: beside what is enqueued next
  // (Context::RunBeside), which must not write the gradient until Context::JoinBeside, due before
  // RunStep. One process: the squares are those of its own gradients.
  Status SumSquaresBeside(Parameter& parameter);

  // Updates inside the backward pass, so that no gradient outlives its use: no clipping, one
  // micro-batch a step, one process. StepScalars::token_count is complete (LlamaModel::CountLabels)
  // before BeginUpdates; UpdateNow is a GradientReady; the results are those of RunStep, bit for
  // bit. Device work alone.
  Status BeginUpdates(bool want_grad_norm);
  Status UpdateNow(Parameter& parameter);
  // The same beside what is enqueued next (Context::RunBeside), which must not touch the parameter,
  // its copies or its gradient until Context::JoinBeside, due before EndUpdates.
  Status UpdateBeside(Parameter& parameter);
  Status EndUpdates();

  // To be called when a recorded step has been launched: the parameters have changed.
  void CountLaunch();

  // Where the run of updates stands. With the tensors of StateTensors() and the parameters it is
  // all that makes the next updates what they are.
  struct Progress {
    int64_t step = 0;         // updates made so far: AdamW's t
    uint64_t rng_offset = 0;  // StepScalars', which every consumer in the context draws by
    std::vector<uint32_t> random_streams;  // of states(), in their order
  };
  StatusOr<Progress> ReadProgress();  // waits for the device
  // For a run that goes on where another one stopped; before the first update, or after the last
  // one has been launched from a recording (which keeps its streams). kInvalidArgument: a negative
  // step, another number of streams; then nothing changes.
  Status WriteProgress(const Progress& progress);

  Context* context() const { return context_; }
  const AdamWOptions& options() const { return options_; }
  const std::vector<State>& states() const { return states_; }
  std::vector<StateTensor> StateTensors() const;

  // By which a step advances StepScalars::rng_offset: micro-batch indices
  // (Context::set_micro_batch) must stay below.
  static constexpr uint64_t kRngAdvance = 65536;

 private:
  AdamWOptimizer(Context* context, const AdamWOptions& options)
      : context_(context), options_(options) {}
  Status CheckGradients() const;
  Status CheckAlone(const char* what) const;
  Status ReduceOverRanks();
  Status SumSquares(const Exec& exec, const State& state);  // into its place
  Status AddSquares();                                      // of all places
  // Of codes that are their own parameter: what the update reads them with.
  Status KeepScaleInv(const Exec& exec, const Parameter& parameter);
  Status UpdateScalars(const StepUpdateArgs& args);
  // `offset`: what rng_offset still lacks of the value that belongs to this update.
  Status Update(const Exec& exec, const State& state, uint64_t offset, bool follows_update);
  Status UpdateBeforeTheEnd(const Exec& exec, Parameter& parameter);

  Context* context_;
  AdamWOptions options_;
  Tensor step_;                // int64 [1], device memory: updates made so far
  Tensor square_sums_;         // float64 [states_]
  bool sums_squares_ = false;  // from BeginUpdates to EndUpdates
  std::vector<State> states_;
  std::unordered_map<const Parameter*, size_t> state_of_;
};

}  // namespace te
