// A context: one device, its memory, scratch, libraries, random numbers and process groups.
// Everything else of te_core is made from one and must be destroyed before it. Two contexts share
// nothing. Thread-compatible: one thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "te_core/comm/process_groups.h"
#include "te_core/quantization/delayed_scaling_state.h"
#include "te_core/quantization/recipe.h"
#include "te_core/tensor.h"
#include "te_kernels/base/step_scalars.h"
#include "te_kernels/device/device.h"

namespace te {

struct ContextOptions {
  std::string device = "cpu";  // or "cuda", "cuda:N": MakeDevice
  int num_threads = 0;         // of the CPU backend; 0: as many as this process may run on
  uint64_t seed = 0;
  void* stream = nullptr;  // the caller's cudaStream_t; null: the context's own (CPU: none)
  // Exec::allow_nondeterministic (Transformer Engine's NVTE_ALLOW_NONDETERMINISTIC_ALGO): the same
  // program need not compute the same bits twice.
  bool allow_nondeterministic = false;
  // Null members: groups of one. Unions that need no ranks of their own may be null
  // (CompleteGroups); ParallelState::groups() has all. They must outlive the context.
  ProcessGroups groups;
};

class ForwardConditions;

struct QuantizationOptions {
  bool training = true;  // false: evaluation, which leaves no trace in any state
  // Arithmetic in the tensors' own dtype, but amaxes enter the histories: scales are good before
  // they are used.
  bool calibrating = false;
  // false: quantized copies of weights are used as they are, unless the weight has changed.
  bool is_first_microbatch = true;
};

// What one forward pass of a module has been told by its scope; its backward pass, which runs
// outside the scope, goes by it.
struct GemmPass {
  const Recipe* recipe = nullptr;  // null: every tensor keeps its dtype
  bool training = false;
  bool calibrating = false;
  bool reuse_weights = false;  // is_first_microbatch is false
  bool first = false;          // of the outermost scope
  bool quantizes() const { return recipe != nullptr && !calibrating; }
  BackwardOverride backward_override() const {
    return quantizes() ? recipe->backward_override() : BackwardOverride::kNone;
  }
  // Whether the backward pass reads columnwise copies.
  bool reads_columnwise() const { return backward_override() == BackwardOverride::kNone; }
  bool Splits(GemmKind kind) const { return recipe == nullptr || recipe->SplitAccumulator(kind); }
};

class Context {
 public:
  // kInvalidArgument, kUnsupported (an unknown device). Groups of any size are taken: what cannot
  // run over one (attention over a context-parallel group, say) refuses it by name.
  static StatusOr<std::unique_ptr<Context>> Create(const ContextOptions& options);
  // On a device of the caller's own making (one that times its operations, say); options.device is
  // not read.
  static StatusOr<std::unique_ptr<Context>> Create(const ContextOptions& options,
                                                   std::unique_ptr<Device> device);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Device& device() { return *device_; }
  const KernelTable& kernels() const { return device_->kernels(); }
  const Exec& exec() const { return exec_; }

  // A second queue, which gets what exec()'s leaves over where both have work; without one (the
  // CPU; a caller's stream of the lowest priority) exec()'s is used for both.
  bool has_queue_beside() const { return beside_.stream != nullptr; }
  // `enqueue` is given the second queue, with a little scratch memory of its own. What it enqueues
  // begins when all that exec()'s holds by now has ended, and runs beside what that is given next:
  // until JoinBeside the two must not touch the same memory, unless both read it.
  Status RunBeside(const std::function<Status(const Exec&)>& enqueue);
  // What exec()'s queue is given from now on waits for the second one. Nothing is done where
  // nothing ran beside since the last call.
  Status JoinBeside();
  Arena* scratch() { return scratch_.get(); }
  // All memory of tensors, arenas and scratch comes from here: device memory, counted.
  MemoryResource* memory();
  const ProcessGroups& groups() const { return options_.groups; }  // completed
  // Whether a step of this context can be recorded: by its device, and by its groups.
  bool can_record() const;
  const ContextOptions& options() const { return options_; }

  StatusOr<Tensor> NewTensor(DType dtype, const Shape& shape);  // contents undefined
  StatusOr<Tensor> NewZeroTensor(DType dtype, const Shape& shape);
  Status CopyToHost(ConstTensorView from, void* to);     // dense; returns when the bytes are there
  Status CopyFromHost(const void* from, TensorView to);  // dense
  Status Zero(TensorView tensor);                        // dense
  Status Synchronize();

  // Scalars of the current step: device memory. The host writes them through the two calls below.
  StepScalars* scalars() { return scalars_; }
  StatusOr<StepScalars> ReadScalars();
  Status WriteScalars(const StepScalars& scalars);
  // loss_sum, token_count and grad_square_sum become 0, without a wait for the device.
  Status BeginStep();

  // A stream of random numbers for one consumer, given out in order of creation: the same program
  // draws the same numbers.
  uint32_t NewRandomStream() { return next_random_stream_++; }
  // The sequence of `stream` in this step and micro-batch.
  RandomState Random(uint32_t stream) const;
  // Which micro-batch of the step is running: it is part of every random sequence.
  void set_micro_batch(uint32_t index) { micro_batch_ = index; }

  // A scope of quantization (Transformer Engine's autocast): the modules that run in it go by its
  // recipe. Scopes nest; null: no quantization inside. `recipe` must outlive the scope and the
  // backward passes of what ran in it. The end of the outermost scope in training updates the
  // scales of forward tensors; those of gradients are updated when the first module that ran in it
  // has ended its backward pass.
  void BeginQuantization(const Recipe* recipe, const QuantizationOptions& options);
  Status EndQuantization();  // kFailedPrecondition without a scope
  // For layers: the word of the innermost scope for one module. `saved`: a backward pass follows.
  GemmPass NewGemmPass(std::string_view module_type, std::string_view name, bool saved);
  // The same for a module's attention: its recipe is null unless it quantizes attention.
  GemmPass NewAttentionPass(std::string_view name, bool saved);
  // Whether a pass that begins now, and that a backward pass follows, quantizes a module's
  // attention.
  bool QuantizesAttention(std::string_view name) const;
  bool in_quantization_scope() const { return !quantization_scopes_.empty(); }
  DelayedScalingState& delayed_scaling() { return *delayed_scaling_; }
  // The first run of the forward pass that runs now for the second time (repeated_forward.h); null:
  // a pass that runs once, or for the first time.
  const ForwardConditions* repeated() const { return repeated_; }
  // The recipe of the innermost QuantizedInit; null: none.
  const Recipe* quantized_init() const { return quantized_init_; }

  // Exec::once of what follows.
  void set_once(bool once) { exec_.once = once; }
  // Exec::sm_margin of what follows.
  void set_sm_margin(int multiprocessors) { exec_.sm_margin = multiprocessors; }
  // While set, operations list there what they execute; null: off. The log must outlive it.
  void set_kernel_log(KernelLog* log) { exec_.log = beside_.log = log; }

  struct MemoryStatistics {
    int64_t allocations = 0;  // calls so far: unchanged over a step whose shapes were seen before
    size_t bytes = 0;         // held now
    size_t peak_bytes = 0;
  };
  MemoryStatistics memory_statistics() const;

 private:
  friend class ForwardConditions;
  friend class QuantizedInit;
  friend class RepeatedForward;
  class CountingMemory;
  explicit Context(const ContextOptions& options);
  Status MakeQueueBeside();
  GemmPass NewPass(const Recipe* recipe, bool saved);
  const Recipe* AttentionRecipe(std::string_view name) const;

  ContextOptions options_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<CountingMemory> memory_;
  std::unique_ptr<Arena> scratch_;
  std::unique_ptr<LibraryState> libraries_;
  struct QuantizationScope {
    const Recipe* recipe = nullptr;
    QuantizationOptions options;
  };
  std::unique_ptr<DelayedScalingState> delayed_scaling_;
  std::vector<QuantizationScope> quantization_scopes_;
  bool first_module_ran_ = false;  // of the outermost scope
  const Recipe* quantized_init_ = nullptr;
  const ForwardConditions* repeated_ = nullptr;
  StepScalars* scalars_ = nullptr;
  void* own_stream_ = nullptr;
  uint32_t next_random_stream_ = 1;
  uint32_t micro_batch_ = 0;
  Exec exec_;
  std::unique_ptr<Arena> scratch_beside_;
  Exec beside_;
  bool ran_beside_ = false;  // since the last JoinBeside
};

// While it lives, what the context runs is not done again (Exec::once): no search for the fastest
// way is worth its time.
class WorkOnce {
 public:
  explicit WorkOnce(Context* context) : context_(context) { context_->set_once(true); }
  ~WorkOnce() { context_->set_once(false); }
  WorkOnce(const WorkOnce&) = delete;
  WorkOnce& operator=(const WorkOnce&) = delete;

 private:
  Context* context_;
};

// While it lives, the GEMM weights of layers that are made in `context` exist in FP8 alone, where
// `recipe` quantizes them for training (Transformer Engine's quantized_model_init): half of
// BF16's memory. Only the layers' own weights (not lm_head's), and only one E4M3 scale a weight:
// delayed scaling, or current scaling, whose scale is then that of the weight's last values,
// because the optimizer writes codes in one pass (fp8_only_weight.h). Scopes nest; null: none
// inside. Thread-compatible; context and recipe must outlive it.
class QuantizedInit {
 public:
  QuantizedInit(Context* context, const Recipe* recipe)
      : context_(context), outer_(context->quantized_init_) {
    context_->quantized_init_ = recipe;
  }
  ~QuantizedInit() { context_->quantized_init_ = outer_; }
  QuantizedInit(const QuantizedInit&) = delete;
  QuantizedInit& operator=(const QuantizedInit&) = delete;

 private:
  Context* context_;
  const Recipe* outer_;
};

}  // namespace te
