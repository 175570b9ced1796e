#include "te_core/quantization/gemm_quantizers.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "fmt/format.h"
#include "te_core/repeated_forward.h"

namespace te {
namespace {

constexpr const char* kTensorTypes[] = {"input", "weight", "grad_output"};

Sink ReadOnly(ConstTensorView dense) {
  // A sink's view is writable because producers share it; an operand's is only read.
  return Sink(
      TensorView(const_cast<void*>(dense.data()), dense.dtype(), dense.shape(), dense.strides()));
}

}  // namespace

class GemmQuantizers::Source {
 public:
  explicit Source(Arena* arena) : arena_(arena) {}
  Source(Context* context, std::vector<Tensor>* tensors) : context_(context), tensors_(tensors) {}

  StatusOr<TensorView> Allocate(DType dtype, const Shape& shape) {
    if (arena_ != nullptr) return arena_->Allocate(dtype, shape);
    TE_ASSIGN_OR_RETURN(Tensor tensor, context_->NewTensor(dtype, shape));
    tensors_->push_back(std::move(tensor));
    return tensors_->back().view();
  }

 private:
  Arena* arena_ = nullptr;
  Context* context_ = nullptr;
  std::vector<Tensor>* tensors_ = nullptr;
};

GemmQuantizers::~GemmQuantizers() {
  if (context_ != nullptr) context_->delayed_scaling().RemoveModule(name_);
}

void GemmQuantizers::Init(Context* context, std::string module_type, std::string name) {
  context_ = context;
  module_type_ = std::move(module_type);
  name_ = std::move(name);
  context_->delayed_scaling().AddModule(name_);
}

QuantizerRole GemmQuantizers::RoleOf(Role role) const {
  return {module_type_, kTensorTypes[role], name_};
}

GemmPass GemmQuantizers::NewPass(bool saved) const {
  return context_->NewGemmPass(module_type_, name_, saved);
}

Status GemmQuantizers::UseSlot(Role role, const GemmPass& pass,
                               const TensorQuantization& quantization, QuantSpec* spec) {
  TE_ASSIGN_OR_RETURN(
      const DelayedScalingState::Slot* slot,
      states_[role].slot.For(
          &context_->delayed_scaling(), context_->exec(),
          fmt::format("{}.{}", name_, kTensorTypes[role]), quantization,
          role == kGradOutput ? ScalingDirection::kBackward : ScalingDirection::kForward));
  TE_ASSIGN_OR_RETURN(const CastScaling scaling, CastScalingOf(*context_, *slot, pass.training));
  spec->scale = scaling.scale;
  spec->amax = scaling.amax;
  return OkStatus();
}

StatusOr<QuantSpec> GemmQuantizers::Spec(Role role, const GemmPass& pass, Source* source,
                                         int64_t rows, int64_t columns, bool rowwise,
                                         bool columnwise) {
  QuantSpec spec;
  if (!pass.quantizes()) return spec;
  const TensorQuantization q = pass.recipe->For(RoleOf(role));
  if (!q.quantized()) return spec;
  if (role == kGradOutput && !pass.reads_columnwise()) return spec;  // it stays in its own dtype
  columnwise = columnwise && pass.reads_columnwise();
  spec.format = q.format;
  spec.scaling = q.scaling;
  spec.power_of_2_scales = q.power_of_2_scales;
  spec.amax_epsilon = q.amax_epsilon;
  spec.stochastic_rounding = q.stochastic_rounding;
  spec.random_hadamard = q.random_hadamard;
  spec.row_scaled = q.row_scaled;
  spec.four_over_six = q.four_over_six;
  spec.e4m3_use_256 = q.e4m3_use_256;
  if (q.stochastic_rounding) {
    std::optional<uint32_t>& stream = states_[role].random_stream;
    if (!stream.has_value()) stream = context_->NewRandomStream();
    spec.random = context_->Random(*stream);
  }
  // scale_inv and, where the tensor's own amax makes the scale, the numbers behind it: each at a
  // 16-byte boundary.
  constexpr int64_t kStride = 4;
  TE_ASSIGN_OR_RETURN(const TensorView numbers, source->Allocate(DType::kFloat32, {3 * kStride}));
  const QuantBlock block = BlockOf(q.scaling);
  const bool fp4 = q.format == QuantFormat::kFloat4E2M1;
  if (block.rows == 0 || fp4) spec.scale_inv = numbers.as<float>();
  if (fp4) spec.columnwise_tensor_scale_inv = numbers.as<float>() + kStride;
  if (q.delayed()) {
    TE_RETURN_IF_ERROR(UseSlot(role, pass, q, &spec));
  } else if (block.rows == 0 || fp4) {
    spec.amax = numbers.as<float>() + 2 * kStride;
  }
  if (q.row_scaled) {
    TE_ASSIGN_OR_RETURN(const TensorView of_rows,
                        source->Allocate(DType::kFloat32, {std::max<int64_t>(rows, 1)}));
    spec.scale_inv = of_rows.as<float>();
    TE_ASSIGN_OR_RETURN(const TensorView of_columns,
                        source->Allocate(DType::kFloat32, {columnwise ? columns : 1}));
    spec.columnwise_tensor_scale_inv = of_columns.as<float>();
  }
  const auto allocate = [&](int64_t r, int64_t c, TensorView* data, TensorView* scales) -> Status {
    TE_ASSIGN_OR_RETURN(*data, source->Allocate(DType::kUInt8, QuantDataShape(q.format, r, c)));
    const Shape shape = BlockScaleShape(q.scaling, r, c);
    if (shape.rank() == 0) return OkStatus();
    TE_ASSIGN_OR_RETURN(*scales, source->Allocate(BlockScaleDType(q.scaling), shape));
    return OkStatus();
  };
  if (rowwise) {
    TE_RETURN_IF_ERROR(allocate(rows, columns, &spec.rowwise_data, &spec.rowwise_scale_inv));
  }
  if (columnwise) {
    TE_RETURN_IF_ERROR(allocate(columns, rows, &spec.columnwise_data, &spec.columnwise_scale_inv));
  }
  return spec;
}

StatusOr<Sink> GemmQuantizers::InputSink(const GemmPass& pass, Arena* arena, TensorView dense,
                                         DType dtype, int64_t rows, int64_t columns, bool wgrad) {
  Source source(arena);
  Sink sink(dense);
  TE_ASSIGN_OR_RETURN(sink.quant, Spec(kInput, pass, &source, rows, columns, true, wgrad));
  const bool read_densely = wgrad && pass.backward_override() == BackwardOverride::kHighPrecision;
  if (!dense.defined() && (!sink.quantized() || read_densely)) {
    TE_ASSIGN_OR_RETURN(sink.dense, arena->Allocate(dtype, {rows, columns}));
  }
  return sink;
}

StatusOr<QuantSpec> GemmQuantizers::GradOutputSpec(const GemmPass& pass, Arena* arena, int64_t rows,
                                                   int64_t columns, bool wgrad) {
  if (pass.quantizes() && !pass.training) {
    return FailedPrecondition(
        "{}: backward after a forward pass in an evaluation scope, which keeps no transposed "
        "copies; expected a scope of training",
        name_);
  }
  Source source(arena);
  return Spec(kGradOutput, pass, &source, rows, columns, true, wgrad);
}

StatusOr<Sink> GemmQuantizers::GradOutputSink(const GemmPass& pass, Arena* arena, bool dense_wanted,
                                              DType dtype, int64_t rows, int64_t columns,
                                              bool wgrad) {
  Sink sink;
  TE_ASSIGN_OR_RETURN(sink.quant, GradOutputSpec(pass, arena, rows, columns, wgrad));
  if (dense_wanted || !sink.quantized()) {
    TE_ASSIGN_OR_RETURN(sink.dense, arena->Allocate(dtype, {rows, columns}));
  }
  return sink;
}

StatusOr<Sink> GemmQuantizers::Input(const GemmPass& pass, Arena* arena, ConstTensorView dense,
                                     bool wgrad) {
  Sink sink = ReadOnly(dense);
  Source source(arena);
  TE_ASSIGN_OR_RETURN(sink.quant,
                      Spec(kInput, pass, &source, dense.dim(0), dense.dim(1), true, wgrad));
  if (sink.quantized()) {
    TE_RETURN_IF_ERROR(
        context_->kernels().quantize(context_->exec(), {.x = dense, .out = sink.quant}));
  }
  return sink;
}

StatusOr<Sink> GemmQuantizers::GradOutput(const GemmPass& pass, Arena* arena, ConstTensorView dense,
                                          const QuantSpec& written, bool wgrad) {
  Sink sink = ReadOnly(dense);
  sink.quant = written;
  if (sink.quantized()) return sink;
  TE_ASSIGN_OR_RETURN(sink.quant, GradOutputSpec(pass, arena, dense.dim(0), dense.dim(1), wgrad));
  if (sink.quantized()) {
    TE_RETURN_IF_ERROR(
        context_->kernels().quantize(context_->exec(), {.x = dense, .out = sink.quant}));
  }
  return sink;
}

StatusOr<std::unique_ptr<Parameter>> GemmQuantizers::NewFp8OnlyWeight(std::string name, DType dtype,
                                                                      int64_t rows,
                                                                      int64_t columns) {
  const Recipe* recipe = context_->quantized_init();
  if (recipe != nullptr) recipe = recipe->ForModule(module_type_, name_, /*training=*/true);
  if (recipe == nullptr) return std::unique_ptr<Parameter>();
  const TensorQuantization q = recipe->For(RoleOf(kWeight));
  if (!q.quantized()) return std::unique_ptr<Parameter>();
  if (!q.fp8_only()) {
    return Unsupported(
        "{}: a weight in FP8 alone by {}, which quantizes it as {} with scaling {}; expected e4m3 "
        "with one scale a tensor: delayed scaling, or current scaling without use_power_2_scales "
        "and amax_epsilon",
        name_, recipe->name(), Name(q.format), Name(q.scaling));
  }
  // The scale of current scaling is that of the codes' last values: a history of one.
  const bool current = !q.delayed();
  TensorQuantization slot_quantization = q;
  slot_quantization.scaling = QuantScaling::kTensor;
  if (current) {
    slot_quantization.amax_history_len = 1;
    slot_quantization.amax_compute_algo = AmaxComputeAlgo::kMostRecent;
  }
  TE_ASSIGN_OR_RETURN(DelayedScalingState::Slot * slot,
                      states_[kWeight].slot.For(&context_->delayed_scaling(), context_->exec(),
                                                current ? "" : fmt::format("{}.weight", name_),
                                                slot_quantization, ScalingDirection::kForward));
  auto weight = std::make_unique<Parameter>();
  weight->name = std::move(name);
  weight->global_shape = {rows, columns};
  QuantizedCopy& copy = weight->quantized;
  copy.only = true;
  copy.dense_dtype = dtype;
  copy.quantization = q;
  copy.slot = slot;
  Source source(context_, &copy.memory);
  // Each scale_inv at a 16-byte boundary.
  constexpr int64_t kStride = 4;
  TE_ASSIGN_OR_RETURN(const TensorView numbers, source.Allocate(DType::kFloat32, {2 * kStride}));
  copy.previous_scale_inv = numbers.as<float>() + kStride;
  copy.spec.format = q.format;
  copy.spec.scaling = QuantScaling::kTensor;
  copy.spec.scale = slot->scale();
  copy.spec.scale_inv = numbers.as<float>();
  copy.spec.amax = slot->amax();
  TE_ASSIGN_OR_RETURN(copy.spec.rowwise_data,
                      source.Allocate(DType::kUInt8, QuantDataShape(q.format, rows, columns)));
  return weight;
}

StatusOr<Operand> GemmQuantizers::Fp8OnlyWeight(const GemmPass& pass, GemmKind kind,
                                                const Parameter& weight) {
  const QuantizedCopy& copy = weight.quantized;
  if (!copy.valid) {
    return FailedPrecondition("{}: the weight exists in FP8 alone, and nothing has been written",
                              name_);
  }
  const int64_t rows = weight.shape()[0], columns = weight.shape()[1];
  TensorQuantization q;
  if (pass.quantizes()) q = pass.recipe->For(RoleOf(kWeight));
  if (!q.quantized()) {
    TE_ASSIGN_OR_RETURN(const TensorView dense,
                        context_->scratch()->Allocate(weight.dtype(), {rows, columns}));
    TE_RETURN_IF_ERROR(
        context_->kernels().dequantize(context_->exec(), {.x = copy.spec, .y = dense}));
    return Operand(dense);
  }
  if (!(q == copy.quantization)) {
    return FailedPrecondition(
        "{}: the weight exists in FP8 alone, and {} quantizes it otherwise than the recipe that it "
        "was made with; expected that one",
        name_, pass.recipe->name());
  }
  Operand out;
  out.quant = copy.spec;
  if (kind == GemmKind::kDgrad) {
    TE_ASSIGN_OR_RETURN(
        out.quant.columnwise_data,
        context_->scratch()->Allocate(DType::kUInt8, QuantDataShape(q.format, columns, rows)));
    TE_RETURN_IF_ERROR(context_->kernels().transpose(
        context_->exec(), {.x = copy.spec.rowwise_data, .y = out.quant.columnwise_data}));
  }
  return out;
}

bool GemmQuantizers::IsOfFirstRun(const QuantizedCopy& copy, const Parameter& weight) const {
  return copy.valid && copy.value_version == weight.version &&
         (copy.slot == nullptr ||
          copy.scale_version <= context_->repeated()->scales().version(*copy.slot));
}

// Another pass has cast the weight anew in between: the copy is for that one, and the first run's
// codes are made again, for this product alone.
StatusOr<Operand> GemmQuantizers::WeightOfFirstRun(const GemmPass& pass, const Parameter& weight) {
  if (pass.recipe->For(RoleOf(kWeight)).delayed() &&
      !context_->repeated()->options().is_first_microbatch) {
    return FailedPrecondition(
        "{}: recomputation after the weight was cast anew, of a forward pass that had reused an "
        "older copy (is_first_microbatch is false): its scale is gone; expected the backward pass "
        "before the next first micro-batch",
        name_);
  }
  Source source(context_->scratch());
  Operand out(weight.value.view());
  TE_ASSIGN_OR_RETURN(out.quant, Spec(kWeight, pass, &source, weight.value.shape()[0],
                                      weight.value.shape()[1], true, false));
  TE_RETURN_IF_ERROR(
      context_->kernels().quantize(context_->exec(), {.x = weight.value, .out = out.quant}));
  return out;
}

StatusOr<Operand> GemmQuantizers::QuantizedWeight(const GemmPass& pass, GemmKind kind,
                                                  Parameter* weight) {
  if (weight->fp8_only()) return Fp8OnlyWeight(pass, kind, *weight);
  Operand out(weight->value.view());
  if (!pass.quantizes()) return out;
  const TensorQuantization q = pass.recipe->For(RoleOf(kWeight));
  if (!q.quantized()) return out;
  QuantizedCopy& copy = weight->quantized;
  if (context_->repeated() != nullptr && !(copy.quantization == q && IsOfFirstRun(copy, *weight))) {
    return WeightOfFirstRun(pass, *weight);
  }
  const bool columnwise = pass.training && pass.reads_columnwise();
  const bool complete = copy.spec.columnwise_data.rank() != 0 || !columnwise;
  if (!(copy.quantization == q) || !complete) {
    copy = QuantizedCopy();
    Source source(context_, &copy.memory);
    TE_ASSIGN_OR_RETURN(copy.spec, Spec(kWeight, pass, &source, weight->value.shape()[0],
                                        weight->value.shape()[1], true, columnwise));
    copy.quantization = q;
    copy.slot = q.delayed() ? states_[kWeight].slot.get() : nullptr;
    if (copy.slot != nullptr) copy.spec.amax = copy.slot->amax();  // for the optimizer, too
  }
  const bool scale_is_new =
      copy.slot != nullptr && !pass.reuse_weights && copy.scale_version != copy.slot->version();
  if (copy.value_version != weight->version || !copy.valid || scale_is_new) {
    QuantSpec spec = copy.spec;
    if (q.delayed() && !pass.training) spec.amax = nullptr;  // evaluation leaves no trace
    TE_RETURN_IF_ERROR(
        context_->kernels().quantize(context_->exec(), {.x = weight->value, .out = spec}));
    copy.MarkWritten(weight->version);
  }
  out.quant = copy.spec;
  return out;
}

StatusOr<Operand> GemmQuantizers::OfBackward(const GemmPass& pass, const Operand& forward,
                                             DType dtype, int64_t rows, int64_t columns) {
  if (!forward.quantized() || pass.backward_override() == BackwardOverride::kNone) return forward;
  // A weight that exists in FP8 alone has no values but those of its codes.
  if (pass.backward_override() == BackwardOverride::kHighPrecision && forward.dense.defined())
    return Operand(forward.dense);
  TE_ASSIGN_OR_RETURN(const TensorView values,
                      context_->scratch()->Allocate(dtype, {rows, columns}));
  TE_RETURN_IF_ERROR(context_->kernels().dequantize(
      context_->exec(), {.x = forward.quant, .orientation = Orientation::kRowwise, .y = values}));
  return Operand(values);
}

StatusOr<Operand> GemmQuantizers::Weight(const GemmPass& pass, GemmKind kind, Parameter* weight) {
  if (kind == GemmKind::kFprop) return QuantizedWeight(pass, kind, weight);
  // The copy that forward has used: its scale may have moved on, its value has not.
  GemmPass backward = pass;
  backward.reuse_weights = true;
  if (!pass.quantizes() || pass.backward_override() == BackwardOverride::kNone)
    return QuantizedWeight(backward, kind, weight);
  TE_ASSIGN_OR_RETURN(const Operand forward, QuantizedWeight(backward, GemmKind::kFprop, weight));
  return OfBackward(pass, forward, weight->dtype(), weight->shape()[0], weight->shape()[1]);
}

StatusOr<Operand> GemmQuantizers::InputOfBackward(const GemmPass& pass, const Sink& input,
                                                  DType dtype, int64_t rows, int64_t columns) {
  return OfBackward(pass, OperandOf(input), dtype, rows, columns);
}

Status GemmQuantizers::Calibrate(Role role, const GemmPass& pass, ConstTensorView dense) {
  if (pass.recipe == nullptr || !pass.calibrating || !pass.training) return OkStatus();
  if (context_->repeated() != nullptr) return OkStatus();  // the first run has measured it
  const TensorQuantization q = pass.recipe->For(RoleOf(role));
  if (!q.delayed()) return OkStatus();
  QuantSpec spec;
  spec.format = q.format;
  spec.scaling = q.scaling;
  TE_RETURN_IF_ERROR(UseSlot(role, pass, q, &spec));
  return context_->kernels().quantize(context_->exec(), {.x = dense, .out = spec});
}

Status GemmQuantizers::CalibrateInput(const GemmPass& pass, ConstTensorView dense) {
  return Calibrate(kInput, pass, dense);
}
Status GemmQuantizers::CalibrateWeight(const GemmPass& pass, const Parameter& weight) {
  // Writers of codes leave their amax.
  return weight.fp8_only() ? OkStatus() : Calibrate(kWeight, pass, weight.value);
}
Status GemmQuantizers::CalibrateGradOutput(const GemmPass& pass, ConstTensorView dense) {
  return Calibrate(kGradOutput, pass, dense);
}

Status GemmQuantizers::EndBackward(const GemmPass& pass) {
  if (!pass.first || !pass.training) return OkStatus();
  return context_->delayed_scaling().Update(context_->exec(), ScalingDirection::kBackward);
}

Status RefreshQuantizedCopy(Context* context, Parameter* weight) {
  QuantizedCopy& copy = weight->quantized;
  if (copy.only || !copy.valid || copy.value_version == weight->version) return OkStatus();
  TE_RETURN_IF_ERROR(
      context->kernels().quantize(context->exec(), {.x = weight->value, .out = copy.spec}));
  copy.MarkWritten(weight->version);
  return OkStatus();
}

}  // namespace te
