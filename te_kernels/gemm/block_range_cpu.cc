#include <algorithm>
#include <atomic>
#include <cmath>

#include "te_kernels/base/float8.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/gemm/block_range.h"

namespace te {
namespace {

// From here on a number may round to infinity in float32 or bfloat16, a few terms further on.
constexpr double kBeyond = 0x1p127;
constexpr double kLeastNormal = 0x1p-126;

}  // namespace

bool BlockRange::Applies(const QuantSpec& quant) {
  return quant.format != QuantFormat::kFloat4E2M1 && BlockOf(quant.scaling).rows != 0;
}

BlockRange::BlockRange(const QuantizedOperand& operand)
    : scaling_(operand.quant->scaling),
      rows_(operand.data.dim(0)),
      columns_(operand.data.dim(1)),
      width_(BlockOf(operand.quant->scaling).columns),
      codes_(operand.data.as<uint8_t>()),
      scales_(operand.block_scale_inv.data()),
      scales_stride_(operand.block_scale_inv.dim(1)) {
  const bool e4m3 = operand.quant->format == QuantFormat::kFloat8E4M3;
  values_ = e4m3 ? kFloat8E4M3Values.data() : kFloat8E5M2Values.data();
  largest_code_ = QuantMax(operand.quant->format);
  least_code_ = values_[1];
}

double BlockRange::Scale(int64_t row, int64_t block) const {
  const auto* floats = static_cast<const float*>(scales_);
  switch (scaling_) {
    case QuantScaling::kBlock1x128:
      return floats[block * scales_stride_ + row];
    case QuantScaling::kBlock128x128:
      return floats[row / 128 * scales_stride_ + block];
    default:
      return E8M0BitsToFloat(static_cast<const uint8_t*>(scales_)[row * scales_stride_ + block]);
  }
}

bool BlockRange::HasSubnormals(const Exec& exec) const {
  std::atomic<bool> found = false;
  ParallelFor(exec, rows_, 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end && !found; ++row) {
      for (int64_t first = 0; first < columns_; first += width_) {
        const double scale = Scale(row, first / width_);
        if (scale * least_code_ >= kLeastNormal) continue;
        const uint8_t* codes = codes_ + row * columns_ + first;
        const bool any =
            std::any_of(codes, codes + std::min(width_, columns_ - first), [&](uint8_t code) {
              const double value = std::fabs(values_[code] * scale);
              return value > 0 && value < kLeastNormal;
            });
        if (any) found = true;
      }
    }
  });
  return found;
}

double BlockRange::Bound(int64_t row) const {
  double scale = 0;
  for (int64_t first = 0; first < columns_; first += width_)
    scale = std::max(scale, Scale(row, first / width_));
  return scale * largest_code_;
}

void BlockRange::DecodeRow(int64_t row, double* out) const {
  const uint8_t* codes = codes_ + row * columns_;
  for (int64_t first = 0; first < columns_; first += width_) {
    const double scale = Scale(row, first / width_);
    const int64_t end = std::min(columns_, first + width_);
    for (int64_t c = first; c < end; ++c) out[c] = values_[codes[c]] * scale;
  }
}

Status MendOverflow(const Exec& exec, const QuantizedOperand& a, const QuantizedOperand& b,
                    const TensorView& d) {
  if (!BlockRange::Applies(*a.quant) || !BlockRange::Applies(*b.quant)) return OkStatus();
  const BlockRange of_a(a), of_b(b);
  const int64_t rows = of_a.rows(), columns = of_b.rows(), terms = of_a.columns();
  if (terms == 0) return OkStatus();
  const ArenaScope scope(exec.scratch);
  const auto doubles = [&exec](int64_t n) -> StatusOr<double*> {
    TE_ASSIGN_OR_RETURN(const TensorView view, exec.scratch->Allocate(DType::kFloat64, {n}));
    return view.as<double>();
  };
  TE_ASSIGN_OR_RETURN(double* const bounds_a, doubles(rows));
  TE_ASSIGN_OR_RETURN(double* const bounds_b, doubles(columns));
  for (int64_t i = 0; i < rows; ++i) bounds_a[i] = of_a.Bound(i);
  for (int64_t j = 0; j < columns; ++j) bounds_b[j] = of_b.Bound(j);
  const auto overflows = [&](int64_t i, int64_t j) {
    return bounds_a[i] >= kBeyond || bounds_b[j] >= kBeyond ||
           bounds_a[i] * bounds_b[j] * static_cast<double>(terms) >= kBeyond;
  };
  // Of ordinary tensors the largest bounds are far from it.
  const double most_a = *std::max_element(bounds_a, bounds_a + rows);
  const double most_b = *std::max_element(bounds_b, bounds_b + columns);
  if (most_a < kBeyond && most_b < kBeyond &&
      most_a * most_b * static_cast<double>(terms) < kBeyond) {
    return OkStatus();
  }
  TE_ASSIGN_OR_RETURN(double* const values, doubles(2 * terms));
  double *const row_of_a = values, *const row_of_b = values + terms;
  for (int64_t i = 0; i < rows; ++i) {
    bool decoded = false;
    float* out = d.Select(0, i).as<float>();
    for (int64_t j = 0; j < columns; ++j) {
      if (!overflows(i, j)) continue;
      if (!decoded) of_a.DecodeRow(i, row_of_a);
      decoded = true;
      of_b.DecodeRow(j, row_of_b);
      double sum = 0;
      for (int64_t k = 0; k < terms; ++k) sum += row_of_a[k] * row_of_b[k];
      out[j] = static_cast<float>(sum);
    }
  }
  return OkStatus();
}

}  // namespace te
