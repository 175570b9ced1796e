#include "te_kernels/base/dtype.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/gemm/block_range.h"
#include "te_kernels/gemm/gemm_quantized.h"

namespace te {
namespace {

constexpr float kOne = 1;

// Codes have at most 4 significant bits and those of E2M1 times an E4M3 scale 6: bfloat16 holds
// them exactly, with 8. So it does where the scale is a power of two (MXFP8, and float32 blocks of
// power_of_2_scales), but for values below its normal numbers, which a product may take for 0.
bool ExactInBfloat16(const Exec& exec, const QuantizedOperand& operand) {
  if (!BlockRange::Applies(*operand.quant)) return true;
  const bool squares = operand.quant->scaling == QuantScaling::kBlock1x128 ||
                       operand.quant->scaling == QuantScaling::kBlock128x128;
  if (squares && !operand.quant->power_of_2_scales) return false;
  return !BlockRange(operand).HasSubnormals(exec);
}

// The operand without its tensor's or rows' factors, which the product is multiplied by at the end.
StatusOr<TensorView> Decode(const Exec& exec, const QuantizedOperand& operand, DType dtype) {
  QuantSpec quant = *operand.quant;
  quant.row_scaled = false;
  if (quant.scale_inv != nullptr) quant.scale_inv = const_cast<float*>(&kOne);
  if (quant.columnwise_tensor_scale_inv != nullptr)
    quant.columnwise_tensor_scale_inv = const_cast<float*>(&kOne);
  const int64_t elements_a_byte = quant.format == QuantFormat::kFloat4E2M1 ? 2 : 1;
  // A padding code at the end of a row of E2M1 is zero and adds nothing.
  const int64_t columns = operand.data.dim(1) * elements_a_byte;
  TE_ASSIGN_OR_RETURN(const TensorView out,
                      exec.scratch->Allocate(dtype, {operand.data.dim(0), columns}));
  TE_RETURN_IF_ERROR(
      DequantizeCpu(exec, {.x = quant, .orientation = operand.orientation, .y = out}));
  return out;
}

bool HasTensorFactor(const QuantSpec& quant) {
  return BlockOf(quant.scaling).rows == 0 || quant.format == QuantFormat::kFloat4E2M1;
}

// What the rows of an operand are multiplied by; in double: two small factors may meet below
// float32's range, though the product does not.
struct Factors {
  explicit Factors(const QuantizedOperand& operand)
      : by_row(operand.quant->row_scaled ? operand.tensor_scale_inv() : nullptr),
        of_all(by_row == nullptr && HasTensorFactor(*operand.quant)
                   ? static_cast<double>(*operand.tensor_scale_inv())
                   : 1.0) {}
  double of(int64_t row) const {
    return by_row == nullptr ? of_all : static_cast<double>(by_row[row]);
  }
  bool one() const { return by_row == nullptr && of_all == 1; }

  const float* by_row;
  double of_all;
};

// d = a's and b's factors * sum + bias + c, rounded once. sum may be d.
template <typename T>
void Finish(const Exec& exec, const GemmArgs& args, const TensorView& sum, const Factors& a,
            const Factors& b) {
  const int64_t columns = args.d.dim(1);
  const ConstTensorView c = args.c.defined() ? args.c : ConstTensorView(args.d);
  ParallelFor(exec, args.d.dim(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* from = sum.Select(0, i).template as<float>();
      const T* add = args.beta != 0 ? c.Select(0, i).template as<T>() : nullptr;
      const T* bias = args.bias.template as<T>();
      T* to = args.d.Select(0, i).template as<T>();
      for (int64_t j = 0; j < columns; ++j) {
        float value = static_cast<float>(static_cast<double>(from[j]) * (a.of(i) * b.of(j)));
        if (bias != nullptr) value += static_cast<float>(bias[j]);
        if (add != nullptr) value += static_cast<float>(add[j]);
        to[j] = T(value);
      }
    }
  });
}

}  // namespace

Status GemmQuantizedCpu(const Exec& exec, const GemmArgs& args) {
  const QuantizedOperand a = QuantizedA(args), b = QuantizedB(args);
  const ArenaScope scope(exec.scratch);
  const DType dtype =
      ExactInBfloat16(exec, a) && ExactInBfloat16(exec, b) ? DType::kBFloat16 : DType::kFloat32;
  TE_ASSIGN_OR_RETURN(const TensorView decoded_a, Decode(exec, a, dtype));
  TE_ASSIGN_OR_RETURN(const TensorView decoded_b, Decode(exec, b, dtype));
  GemmArgs product;
  product.kind = GemmKind::kFprop;  // whatever args' kind: both lie along the sum
  product.a = decoded_a;
  product.b = decoded_b;
  const Factors factors_a(a), factors_b(b);
  const bool in_place = args.d.dtype() == DType::kFloat32 && args.beta == 0;
  if (in_place) {
    product.d = args.d;
  } else {
    TE_ASSIGN_OR_RETURN(product.d, exec.scratch->Allocate(DType::kFloat32, args.d.shape()));
  }
  TE_RETURN_IF_ERROR(GemmCpu(exec, product));
  TE_RETURN_IF_ERROR(MendOverflow(exec, a, b, product.d));
  if (in_place && factors_a.one() && factors_b.one() && !args.bias.defined()) return OkStatus();
  args.d.dtype() == DType::kFloat32 ? Finish<float>(exec, args, product.d, factors_a, factors_b)
                                    : Finish<bfloat16>(exec, args, product.d, factors_a, factors_b);
  return OkStatus();
}

}  // namespace te
