// A context: one device, its memory, scratch, libraries, random numbers and process groups.
// Everything else of te_core is made from one and must be destroyed before it. Two contexts share
// nothing. Thread-compatible: one thread at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "te_core/comm/communicator.h"
#include "te_core/recipe.h"
#include "te_core/tensor.h"
#include "te_kernels/base/step_scalars.h"
#include "te_kernels/device/device.h"

namespace te {

struct ContextOptions {
  std::string device = "cpu";  // or "cuda", "cuda:N": MakeDevice
  int num_threads = 0;         // of the CPU backend; 0: as many as this process may run on
  uint64_t seed = 0;
  void* stream = nullptr;  // the caller's cudaStream_t; null: the context's own (CPU: none)
  ProcessGroups groups;    // null members: groups of one
};

class Context {
 public:
  // kInvalidArgument, kUnsupported (an unknown device, a group of more than one process: later
  // issues).
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
  Arena* scratch() { return scratch_.get(); }
  // All memory of tensors, arenas and scratch comes from here: device memory, counted.
  MemoryResource* memory();
  const ProcessGroups& groups() const { return options_.groups; }
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

  // The recipe of the innermost scope; outside any, every tensor keeps its own dtype.
  Recipe& recipe() { return recipe_scopes_.empty() ? *default_recipe_ : *recipe_scopes_.back(); }
  // Scopes nest; `recipe` must outlive its scope.
  void BeginRecipe(Recipe* recipe) { recipe_scopes_.push_back(recipe); }
  Status EndRecipe();  // kFailedPrecondition without a scope

  // While set, operations list there what they execute; null: off. The log must outlive it.
  void set_kernel_log(KernelLog* log) { exec_.log = log; }

  struct MemoryStatistics {
    int64_t allocations = 0;  // calls so far: unchanged over a step whose shapes were seen before
    size_t bytes = 0;         // held now
    size_t peak_bytes = 0;
  };
  MemoryStatistics memory_statistics() const;

 private:
  class CountingMemory;
  explicit Context(const ContextOptions& options);

  ContextOptions options_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<CountingMemory> memory_;
  std::unique_ptr<Arena> scratch_;
  std::unique_ptr<LibraryState> libraries_;
  std::unique_ptr<Recipe> default_recipe_;
  std::vector<Recipe*> recipe_scopes_;
  StepScalars* scalars_ = nullptr;
  void* own_stream_ = nullptr;
  uint32_t next_random_stream_ = 1;
  uint32_t micro_batch_ = 0;
  Exec exec_;
};

}  // namespace te
