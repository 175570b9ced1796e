// FP8 products through cuBLASLt. Hopper's take both operands with rows along the sum (TN), which is
// how quantized tensors are held. In column-major terms d^T = b a^T: our b is cuBLASLt's A. The
// rules below are those of its documentation (FP8 requirements, 128-element and 128x128 scaling)
// and of Transformer Engine, which pads for them.
#include "te_kernels/gemm/cublaslt_matmul.h"
#include "te_kernels/gemm/gemm_empty_cuda.h"
#include "te_kernels/gemm/gemm_quantized.h"

namespace te {
namespace {

constexpr uintptr_t kAlignment = 16;  // of everything that tensor memory accesses read or write

bool HasBlocks(const QuantizedOperand& operand) {
  return BlockOf(operand.quant->scaling).rows != 0;
}

Status CheckMultiple(const char* op, const char* name, const char* what, int64_t size, int64_t of,
                     const char* scaling) {
  if (size % of == 0) return OkStatus();
  return Unsupported(
      "{}: {}'s {} is {}; cuBLASLt takes multiples of {} with scaling {}: pad it to {}", op, name,
      what, size, of, scaling, (size + of - 1) / of * of);
}

Status CheckAligned(const char* op, const char* name, const char* what, const void* address) {
  if (reinterpret_cast<uintptr_t>(address) % kAlignment == 0) return OkStatus();
  return Unsupported("{}: {}'s {} is at {}; cuBLASLt's FP8 products take multiples of {} bytes", op,
                     name, what, address, kAlignment);
}

Status CheckRows(const char* op, const char* name, const ConstTensorView& view) {
  TE_RETURN_IF_ERROR(CheckAligned(op, name, "data", view.data()));
  const int64_t bytes = view.stride(0) * static_cast<int64_t>(SizeOf(view.dtype()));
  if (view.dim(0) <= 1 || bytes % static_cast<int64_t>(kAlignment) == 0) return OkStatus();
  return Unsupported(
      "{}: {}'s rows are {} bytes apart; cuBLASLt's FP8 products take multiples of {}", op, name,
      bytes, kAlignment);
}

Status CheckScaling(const char* op, const char* name, const QuantSpec& quant, int capability) {
  const char* needs = nullptr;
  switch (quant.scaling) {
    case QuantScaling::kTensor:
    case QuantScaling::kTensorCurrent:
      if (capability < 89) needs = "8.9 or above";
      break;
    case QuantScaling::kBlock1x128:
    case QuantScaling::kBlock128x128:
      if (capability != 90) needs = "9.0";
      break;
    default:
      return Unsupported(
          "{}: {} has format {} with scaling {}, which needs compute capability 10.0 or above and "
          "is not part of the CUDA backend, made for 9.0 (this device: {}.{})",
          op, name, Name(quant.format), Name(quant.scaling), capability / 10, capability % 10);
  }
  if (needs == nullptr) return OkStatus();
  return Unsupported(
      "{}: {} has format {} with scaling {}, which needs compute capability {}; this "
      "device has {}.{}",
      op, name, Name(quant.format), Name(quant.scaling), needs, capability / 10, capability % 10);
}

LtCodes CodesOf(const QuantizedOperand& operand) {
  return {.format = operand.quant->format,
          .scaling = operand.quant->scaling,
          .scale_inv = HasBlocks(operand) ? operand.block_scale_inv.as<float>()
                                          : operand.tensor_scale_inv()};
}

Status CheckShapes(const GemmArgs& args, const QuantizedOperand& a, const QuantizedOperand& b) {
  const auto [op, a_name, b_name, d_name] = NamesOf(args.kind);
  const char* a_scaling = Name(a.quant->scaling);
  TE_RETURN_IF_ERROR(
      CheckMultiple(op, a_name, "dimension that is summed over", a.data.dim(1), 16, a_scaling));
  TE_RETURN_IF_ERROR(
      CheckMultiple(op, d_name, "number of columns", args.d.dim(1), 16, Name(b.quant->scaling)));
  // An observation of Transformer Engine's; undocumented.
  if (a.quant->scaling == QuantScaling::kBlock1x128) {
    TE_RETURN_IF_ERROR(CheckMultiple(op, d_name, "number of rows", args.d.dim(0), 8, a_scaling));
  }
  TE_RETURN_IF_ERROR(CheckAligned(op, a_name, "data", a.data.data()));
  TE_RETURN_IF_ERROR(CheckAligned(op, b_name, "data", b.data.data()));
  TE_RETURN_IF_ERROR(CheckAligned(op, a_name, "scale_inv", CodesOf(a).scale_inv));
  TE_RETURN_IF_ERROR(CheckAligned(op, b_name, "scale_inv", CodesOf(b).scale_inv));
  TE_RETURN_IF_ERROR(CheckRows(op, d_name, args.d));
  if (args.beta != 0 && args.c.defined()) TE_RETURN_IF_ERROR(CheckRows(op, "c", args.c));
  return OkStatus();
}

const char* KindName(GemmKind kind) {
  switch (kind) {
    case GemmKind::kFprop:
      return "fprop";
    case GemmKind::kDgrad:
      return "dgrad";
    case GemmKind::kWgrad:
      break;
  }
  return "wgrad";
}

}  // namespace

Status GemmQuantizedCuda(const Exec& exec, const GemmArgs& args) {
  const QuantizedOperand a = QuantizedA(args), b = QuantizedB(args);
  const GemmNames names = NamesOf(args.kind);
  TE_ASSIGN_OR_RETURN(const cuda::CudaState* state, cuda::GetCudaState(exec));
  const int capability = state->compute_capability();
  TE_RETURN_IF_ERROR(CheckScaling(names.operation, names.a, *a.quant, capability));
  TE_RETURN_IF_ERROR(CheckScaling(names.operation, names.b, *b.quant, capability));
  if (a.data.dim(1) == 0) return GemmEmptyCuda(exec, args);
  TE_RETURN_IF_ERROR(CheckShapes(args, a, b));
  // The epilogue's bias over FP8 operands is 16 bits wide even where the result is float32.
  const bool add_bias = args.bias.defined() && args.d.dtype() == DType::kFloat32;
  LtMatmulArgs matmul = {.a = a.data,
                         .b = b.data.Transpose(0, 1),
                         .bias = add_bias ? ConstTensorView() : args.bias,
                         .c = args.c,
                         .d = args.d,
                         .beta = args.beta};
  matmul.a_codes = CodesOf(a);
  matmul.b_codes = CodesOf(b);
  // Sums of scaled blocks meet in float32 in any case: cuBLASLt has no fast accumulation there.
  matmul.fast_accumulation = !args.split_accumulator && !HasBlocks(a) && !HasBlocks(b);
  TE_RETURN_IF_ERROR(RunLtMatmul(exec, matmul, "gemm", KindName(args.kind)));
  return add_bias ? GemmAddBiasCuda(exec, args) : OkStatus();
}

}  // namespace te
