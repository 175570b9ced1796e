#include "te_core/context.h"

#include <atomic>

namespace te {

// Counts what goes through, so that a test can prove that a repeated step allocates nothing.
class Context::CountingMemory : public MemoryResource {
 public:
  explicit CountingMemory(MemoryResource* next) : next_(next) {}

  StatusOr<void*> Allocate(size_t bytes) override {
    TE_ASSIGN_OR_RETURN(void* pointer, next_->Allocate(bytes));
    ++allocations_;
    const size_t held = bytes_.fetch_add(bytes) + bytes;
    size_t peak = peak_.load();
    while (held > peak && !peak_.compare_exchange_weak(peak, held)) {
    }
    return pointer;
  }
  void Free(void* pointer, size_t bytes) override {
    bytes_ -= bytes;
    next_->Free(pointer, bytes);
  }
  MemoryStatistics statistics() const { return {allocations_.load(), bytes_.load(), peak_.load()}; }

 private:
  MemoryResource* next_;
  std::atomic<int64_t> allocations_{0};
  std::atomic<size_t> bytes_{0};
  std::atomic<size_t> peak_{0};
};

StatusOr<std::unique_ptr<Context>> Context::Create(const ContextOptions& options) {
  TE_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, MakeDevice(options.device));
  return Create(options, std::move(device));
}

StatusOr<std::unique_ptr<Context>> Context::Create(const ContextOptions& options,
                                                   std::unique_ptr<Device> device) {
  if (options.num_threads < 0) {
    return InvalidArgument("num_threads is {}; expected 0 (all) or more", options.num_threads);
  }
  TE_ASSIGN_OR_RETURN(const ProcessGroups groups, CompleteGroups(options.groups));
  std::unique_ptr<Context> context(new Context(options));
  context->options_.groups = groups;
  context->device_ = std::move(device);
  if (context->options_.num_threads == 0)
    context->options_.num_threads = context->device_->default_threads();
  context->memory_ = std::make_unique<CountingMemory>(context->device_.get());
  context->scratch_ = std::make_unique<Arena>(context->memory_.get());
  context->delayed_scaling_ =
      std::make_unique<DelayedScalingState>(context->device_.get(), context->memory_.get(), groups);
  TE_ASSIGN_OR_RETURN(context->libraries_, context->device_->NewLibraryState());
  context->exec_.stream = options.stream;
  if (options.stream == nullptr) {
    TE_ASSIGN_OR_RETURN(context->own_stream_, context->device_->NewStream());
    context->exec_.stream = context->own_stream_;
  }
  context->exec_.num_threads = context->options_.num_threads;
  context->exec_.allow_nondeterministic = options.allow_nondeterministic;
  context->exec_.scratch = context->scratch_.get();
  context->exec_.libraries = context->libraries_.get();
  TE_RETURN_IF_ERROR(context->MakeQueueBeside());
  TE_ASSIGN_OR_RETURN(void* scalars, context->memory_->Allocate(sizeof(StepScalars)));
  context->scalars_ = static_cast<StepScalars*>(scalars);
  TE_RETURN_IF_ERROR(context->WriteScalars(StepScalars{}));
  return context;
}

Context::Context(const ContextOptions& options) : options_(options) {}

Context::~Context() {
  if (scalars_ != nullptr) memory_->Free(scalars_, sizeof(StepScalars));
  if (beside_.stream != nullptr) device_->FreeStream(beside_.stream);
  if (own_stream_ != nullptr) device_->FreeStream(own_stream_);
}

Status Context::MakeQueueBeside() {
  // All of it there before a step is recorded, which may not allocate.
  constexpr size_t kScratchBytes = size_t{64} << 10;
  TE_ASSIGN_OR_RETURN(void* stream, device_->NewStreamBehind(exec_.stream));
  if (stream == nullptr) return OkStatus();
  beside_ = exec_;
  beside_.stream = stream;
  beside_.beside = true;
  scratch_beside_ = std::make_unique<Arena>(memory_.get());
  beside_.scratch = scratch_beside_.get();
  const ArenaScope scope(beside_.scratch);
  return beside_.scratch->Allocate(kScratchBytes).status();
}

Status Context::RunBeside(const std::function<Status(const Exec&)>& enqueue) {
  if (!has_queue_beside()) return enqueue(exec_);
  TE_RETURN_IF_ERROR(device_->Follow(beside_, exec_));
  ran_beside_ = true;
  return enqueue(beside_);
}

Status Context::JoinBeside() {
  if (!ran_beside_) return OkStatus();
  ran_beside_ = false;
  return device_->Follow(exec_, beside_);
}

MemoryResource* Context::memory() { return memory_.get(); }

bool Context::can_record() const {
  const ProcessGroups& g = groups();
  for (const Communicator* group :
       {g.data, g.tensor, g.context, g.pipeline, g.expert, g.expert_tensor, g.expert_data,
        g.tensor_context, g.data_context, g.tensor_context_data, g.tensor_pipeline, g.tensor_expert,
        g.tensor_expert_pipeline, g.embedding}) {
    if (GroupSize(group) > 1 && !group->can_record()) return false;
  }
  return device_->can_record(exec_);
}

StatusOr<Tensor> Context::NewTensor(DType dtype, const Shape& shape) {
  return Tensor::Allocate(memory_.get(), dtype, shape);
}

StatusOr<Tensor> Context::NewZeroTensor(DType dtype, const Shape& shape) {
  TE_ASSIGN_OR_RETURN(Tensor tensor, NewTensor(dtype, shape));
  TE_RETURN_IF_ERROR(Zero(tensor.view()));
  return tensor;
}

Status Context::CopyToHost(ConstTensorView from, void* to) {
  if (!from.IsDense()) return InvalidArgument("copy to host: {} is not dense", from.ToString());
  TE_RETURN_IF_ERROR(device_->CopyToHost(exec_, from.data(), to, from.bytes()));
  return device_->Synchronize(exec_);
}

Status Context::CopyFromHost(const void* from, TensorView to) {
  if (!to.IsDense()) return InvalidArgument("copy from host: {} is not dense", to.ToString());
  return device_->CopyFromHost(exec_, from, to.data(), to.bytes());
}

Status Context::Zero(TensorView tensor) {
  if (!tensor.IsDense()) return InvalidArgument("zero: {} is not dense", tensor.ToString());
  return device_->Zero(exec_, tensor.data(), tensor.bytes());
}

Status Context::Synchronize() { return device_->Synchronize(exec_); }

StatusOr<StepScalars> Context::ReadScalars() {
  StepScalars scalars;
  TE_RETURN_IF_ERROR(device_->CopyToHost(exec_, scalars_, &scalars, sizeof(scalars)));
  TE_RETURN_IF_ERROR(device_->Synchronize(exec_));
  return scalars;
}

Status Context::WriteScalars(const StepScalars& scalars) {
  return device_->CopyFromHost(exec_, &scalars, scalars_, sizeof(scalars));
}

Status Context::BeginStep() {
  TE_RETURN_IF_ERROR(device_->Zero(exec_, &scalars_->loss_sum, sizeof(scalars_->loss_sum)));
  TE_RETURN_IF_ERROR(device_->Zero(exec_, &scalars_->token_count, sizeof(scalars_->token_count)));
  return device_->Zero(exec_, &scalars_->grad_square_sum, sizeof(scalars_->grad_square_sum));
}

void Context::BeginQuantization(const Recipe* recipe, const QuantizationOptions& options) {
  if (quantization_scopes_.empty()) first_module_ran_ = false;
  quantization_scopes_.push_back({recipe, options});
}

Status Context::EndQuantization() {
  if (quantization_scopes_.empty())
    return FailedPrecondition("end of a quantization scope that was never begun");
  const QuantizationScope scope = quantization_scopes_.back();
  quantization_scopes_.pop_back();
  if (!quantization_scopes_.empty() || !scope.options.training || scope.recipe == nullptr)
    return OkStatus();
  return delayed_scaling_->Update(exec_, ScalingDirection::kForward);
}

GemmPass Context::NewPass(const Recipe* recipe, bool saved) {
  GemmPass pass;
  const QuantizationOptions& options = quantization_scopes_.back().options;
  pass.recipe = recipe;
  pass.training = options.training && saved;
  pass.calibrating = options.calibrating;
  pass.reuse_weights = !options.is_first_microbatch;
  if (pass.recipe != nullptr && pass.training && !first_module_ran_)
    pass.first = first_module_ran_ = true;
  return pass;
}

GemmPass Context::NewGemmPass(std::string_view module_type, std::string_view name, bool saved) {
  if (quantization_scopes_.empty()) return {};
  const auto& [recipe, options] = quantization_scopes_.back();
  return NewPass(
      recipe == nullptr ? nullptr : recipe->ForModule(module_type, name, options.training), saved);
}

// Null: attention in its own dtype. In a scope.
const Recipe* Context::AttentionRecipe(std::string_view name) const {
  const auto& [recipe, options] = quantization_scopes_.back();
  if (recipe == nullptr) return nullptr;
  const Recipe* own = recipe->ForModule("dot_product_attention", name, options.training);
  if (own == nullptr || !own->ForAttention(AttentionTensor::kQkv).quantized()) return nullptr;
  return own;
}

GemmPass Context::NewAttentionPass(std::string_view name, bool saved) {
  if (quantization_scopes_.empty()) return {};
  return NewPass(AttentionRecipe(name), saved);
}

bool Context::QuantizesAttention(std::string_view name) const {
  if (quantization_scopes_.empty()) return false;
  const QuantizationOptions& options = quantization_scopes_.back().options;
  return options.training && !options.calibrating && AttentionRecipe(name) != nullptr;
}

RandomState Context::Random(uint32_t stream) const {
  return {.seed = options_.seed,
          .stream = stream,
          .offset = micro_batch_,
          .step_offset = &scalars_->rng_offset};
}

Context::MemoryStatistics Context::memory_statistics() const { return memory_->statistics(); }

}  // namespace te
