#include <algorithm>

#include "te_kernels/base/float8.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/dequantize/dequantize.h"
#include "te_kernels/dequantize/dequantize_sink.h"

namespace te {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements

// Of the elements of one row that share a scale, what their codes' values are multiplied by, first
// by block, then by tensor: only one of them rounds.
struct Factors {
  float block = 1;
  float tensor = 1;
};

struct Source {
  QuantScaling scaling;
  const uint8_t* codes;
  bool packed;
  const float* values;  // of all codes
  int64_t codes_stride;
  const void* block_scales;
  int64_t scales_stride;
  float tensor_scale_inv;
  const float* row_scale_inv;  // row_scaled: instead of it; else null
  int64_t width;               // elements of a row that share a scale

  Factors At(int64_t row, int64_t block) const {
    const auto* floats = static_cast<const float*>(block_scales);
    const auto* bytes = static_cast<const uint8_t*>(block_scales);
    switch (scaling) {
      case QuantScaling::kTensor:
      case QuantScaling::kTensorCurrent:
        return {1, tensor_scale_inv};
      case QuantScaling::kBlock1x128:
        return {floats[block * scales_stride + row], 1};
      case QuantScaling::kBlock128x128:
        return {floats[row / 128 * scales_stride + block], 1};
      case QuantScaling::kMx1x32:
      case QuantScaling::kMx32x32:
        return {E8M0BitsToFloat(bytes[row * scales_stride + block]), 1};
      case QuantScaling::kNvfp4_1x16:
      case QuantScaling::kNvfp4_16x16:
        return {kFloat8E4M3Values[bytes[row * scales_stride + block]],
                row_scale_inv == nullptr ? tensor_scale_inv : row_scale_inv[row]};
    }
    return {};
  }
};

Source SourceOf(const DequantizeArgs& args) {
  const QuantSpec& x = args.x;
  const bool rowwise = args.orientation == Orientation::kRowwise;
  const TensorView& data = dequantize::Codes(args);
  const TensorView& scales = rowwise ? x.rowwise_scale_inv : x.columnwise_scale_inv;
  Source source;
  source.scaling = x.scaling;
  source.codes = data.as<uint8_t>();
  source.packed = x.format == QuantFormat::kFloat4E2M1;
  source.values = source.packed                          ? kFloat4E2M1Values.data()
                  : x.format == QuantFormat::kFloat8E4M3 ? kFloat8E4M3Values.data()
                                                         : kFloat8E5M2Values.data();
  source.codes_stride = data.dim(1);
  source.block_scales = scales.data();
  source.scales_stride = BlockScaleShape(x.scaling, 1, 1).rank() == 0 ? 0 : scales.dim(1);
  const bool own = !rowwise && source.packed && x.columnwise_has_own_scale();
  const float* tensor = own ? x.columnwise_tensor_scale_inv : x.scale_inv;
  source.row_scale_inv = x.row_scaled ? tensor : nullptr;
  const bool needs_tensor = !x.row_scaled && (source.packed || source.scales_stride == 0);
  source.tensor_scale_inv = needs_tensor && tensor != nullptr ? *tensor : 1;
  source.width = source.scales_stride == 0 ? args.y.dense.dim(1) : BlockOf(x.scaling).columns;
  return source;
}

template <typename T>
void Row(const Source& source, int64_t row, int64_t columns, T* y) {
  const uint8_t* codes = source.codes + row * source.codes_stride;
  for (int64_t first = 0; first < columns; first += source.width) {
    const Factors by = source.At(row, first / source.width);
    const int64_t end = std::min(columns, first + source.width);
    if (source.packed) {
      for (int64_t c = first; c < end; ++c) {
        const float value = source.values[codes[c / 2] >> (c % 2 * 4) & 0xf];
        StoreRounded(value * by.block * by.tensor, y + c);
      }
    } else {
      for (int64_t c = first; c < end; ++c) {
        StoreRounded(source.values[codes[c]] * by.block * by.tensor, y + c);
      }
    }
  }
}

template <typename T>
void Run(const Exec& exec, const DequantizeArgs& args) {
  const Source source = SourceOf(args);
  const TensorView& y = args.y.dense;
  const int64_t columns = y.dim(1);
  ParallelFor(exec, y.dim(0), kGrain / columns + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) Row(source, r, columns, y.as<T>() + r * y.stride(0));
  });
}

}  // namespace

Status DequantizeCpu(const Exec& exec, const DequantizeArgs& args) {
  TE_RETURN_IF_ERROR(ValidateDequantize(args));
  const auto run = [&exec](const DequantizeArgs& dense) {
    if (dense.y.dense.elements() == 0) return OkStatus();
    dense.y.dense.dtype() == DType::kFloat32 ? Run<float>(exec, dense) : Run<bfloat16>(exec, dense);
    return OkStatus();
  };
  return dequantize::RunThenQuantize(exec, args, run, [&exec](const QuantizeArgs& quantize) {
    return QuantizeCpu(exec, quantize);
  });
}

}  // namespace te
