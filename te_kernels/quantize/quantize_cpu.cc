// Tiles of 128 x 128 elements, which all blocks divide: one read of x makes both orientations, and
// what they need twice (scales of squares, codes of a whole tensor's scale) is made once. Maxima
// do not depend on their order, so results do not depend on the number of threads.
#include <atomic>

#include "te_kernels/base/parallel.h"
#include "te_kernels/quantize/quantize.h"
#include "te_kernels/quantize/quantize_scales.h"
#include "te_kernels/quantize/quantize_tile.h"

namespace te {
namespace {

using quantize_internal::kTile;
using quantize_internal::Plan;
using quantize_internal::Tile;

constexpr int64_t kGrain = 2;  // tiles

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Magnitudes order as their bits do. Any number of threads.
void IncludeInMaximum(uint32_t bits, uint32_t& maximum) {
  const std::atomic_ref<uint32_t> shared(maximum);
  uint32_t seen = shared.load(std::memory_order_relaxed);
  while (seen < bits && !shared.compare_exchange_weak(seen, bits, std::memory_order_relaxed)) {
  }
}

class SharedMaximum {
 public:
  void Include(uint32_t bits) { IncludeInMaximum(bits, bits_); }
  float value() const { return std::bit_cast<float>(bits_); }

 private:
  uint32_t bits_ = 0;
};

template <typename T, typename Body>
void ForEachTile(const Exec& exec, const ConstTensorView& x, const Body& body) {
  const int64_t rows = x.dim(0), columns = x.dim(1);
  const int64_t across = CeilDiv(columns, kTile);
  ParallelFor(exec, CeilDiv(rows, kTile) * across, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Tile<T> tile;
      tile.first_row = i / across * kTile;
      tile.first_column = i % across * kTile;
      tile.rows = std::min(kTile, rows - tile.first_row);
      tile.columns = std::min(kTile, columns - tile.first_column);
      tile.stride = x.stride(0);
      tile.x = x.as<T>() + tile.first_row * tile.stride + tile.first_column;
      body(tile);
    }
  });
}

template <typename T>
float MaxAbsOf(const Exec& exec, const ConstTensorView& x) {
  SharedMaximum maximum;
  ForEachTile<T>(exec, x, [&](const Tile<T>& tile) { maximum.Include(MaxAbsBits(tile)); });
  return maximum.value();
}

template <typename T>
float TransformedMaxAbsOf(const Exec& exec, const ConstTensorView& x, float factor) {
  SharedMaximum maximum;
  ForEachTile<T>(exec, x, [&](const Tile<T>& tile) {
    alignas(64) T transformed[kTile * kTile];
    maximum.Include(MaxAbsBits(quantize_internal::Transformed(tile, factor, transformed)));
  });
  return maximum.value();
}

// Entries of float32 block scales beyond the tensor.
void ClearPadding(QuantScaling scaling, const TensorView& scales, int64_t rows, int64_t columns) {
  if (scales.rank() == 0 || BlockScaleDType(scaling) != DType::kFloat32) return;
  const int64_t used = scaling == QuantScaling::kBlock1x128 ? rows : CeilDiv(columns, kTile);
  for (int64_t i = 0; i < scales.dim(0); ++i) {
    for (int64_t j = used; j < scales.dim(1); ++j) scales.as<float>()[i * scales.dim(1) + j] = 0;
  }
}

// row_scaled: the amax of each row and column that an orientation goes by, in scratch, and
// scale_inv.
template <typename T>
Status SetRowScales(const Exec& exec, const QuantizeArgs& args, Plan& plan) {
  const QuantSpec& out = args.out;
  const auto allocate = [&exec](int64_t n) -> StatusOr<uint32_t*> {
    TE_ASSIGN_OR_RETURN(const TensorView view, exec.scratch->Allocate(DType::kFloat32, {n}));
    std::fill_n(view.as<uint32_t>(), n, 0u);
    return view.as<uint32_t>();
  };
  uint32_t* rows = nullptr;
  uint32_t* columns = nullptr;
  if (plan.rowwise) {
    TE_ASSIGN_OR_RETURN(rows, allocate(plan.rows));
  }
  if (plan.columnwise) {
    TE_ASSIGN_OR_RETURN(columns, allocate(plan.columns));
  }
  ForEachTile<T>(exec, args.x, [&](const Tile<T>& tile) {
    uint32_t maxima[kTile];
    if (rows != nullptr) {
      RowMaxAbsBits(tile, maxima);
      for (int64_t r = 0; r < tile.rows; ++r) IncludeInMaximum(maxima[r], rows[tile.first_row + r]);
    }
    if (columns != nullptr) {
      ColumnMaxAbsBits(tile, maxima);
      for (int64_t c = 0; c < tile.columns; ++c)
        IncludeInMaximum(maxima[c], columns[tile.first_column + c]);
    }
  });
  plan.row_amaxes = reinterpret_cast<const float*>(rows);
  plan.column_amaxes = reinterpret_cast<const float*>(columns);
  for (int64_t r = 0; plan.rowwise && r < plan.rows; ++r)
    out.scale_inv[r] = 1.0f / plan.OfRow(r).scale;
  for (int64_t c = 0; plan.columnwise && c < plan.columns; ++c)
    out.columnwise_tensor_scale_inv[c] = 1.0f / plan.OfColumn(c).scale;
  return OkStatus();
}

// Scales of the whole tensor, and what says them.
template <typename T>
Status SetTensorScales(const Exec& exec, const QuantizeArgs& args, Plan& plan) {
  const QuantSpec& out = args.out;
  switch (out.scaling) {
    case QuantScaling::kTensor:
      plan.rowwise_scale.scale = out.scale == nullptr ? 1 : *out.scale;
      plan.columnwise_scale = plan.rowwise_scale;
      if (out.scale_inv != nullptr) *out.scale_inv = 1.0f / plan.rowwise_scale.scale;
      break;
    case QuantScaling::kTensorCurrent: {
      const float amax = MaxAbsOf<T>(exec, args.x);
      if (out.amax != nullptr) *out.amax = amax;
      plan.rowwise_scale.scale =
          ScaleFromAmax(amax, QuantMax(out.format), out.power_of_2_scales, out.amax_epsilon);
      plan.columnwise_scale = plan.rowwise_scale;
      if (out.scale_inv != nullptr) *out.scale_inv = 1.0f / plan.rowwise_scale.scale;
      break;
    }
    case QuantScaling::kNvfp4_1x16:
    case QuantScaling::kNvfp4_16x16: {
      const float amax = MaxAbsOf<T>(exec, args.x);
      plan.rowwise_scale = plan.columnwise_scale = Nvfp4TensorScale(out, amax);
      if (out.amax != nullptr) out.amax[0] = amax;
      if (out.row_scaled) {
        TE_RETURN_IF_ERROR(SetRowScales<T>(exec, args, plan));
      } else if (out.scale_inv != nullptr) {
        *out.scale_inv = 1.0f / plan.rowwise_scale.scale;
      }
      if (!plan.columnwise) break;
      float columnwise_amax = amax;
      if (out.random_hadamard) {
        // Sixteen quarters of the largest numbers are beyond float32: a quarter of the transformed
        // tensor has the same codes and block scales, and a fourth of its scale_inv.
        const bool overflows = std::isfinite(amax) && amax > kLargest<T> / 4;
        const float quarter = overflows ? 0.25f : 1.0f;
        plan.hadamard_factor = quarter * quantize_internal::kHadamardFactor;
        columnwise_amax = TransformedMaxAbsOf<T>(exec, args.x, plan.hadamard_factor);
        plan.columnwise_scale = Nvfp4TensorScale(out, columnwise_amax);
        *out.columnwise_tensor_scale_inv = 1.0f / plan.columnwise_scale.scale / quarter;
        columnwise_amax /= quarter;
      }
      if (out.amax != nullptr) out.amax[1] = columnwise_amax;
      break;
    }
    default:
      break;
  }
  return OkStatus();
}

template <typename T>
Status Run(const Exec& exec, const QuantizeArgs& args) {
  const QuantSpec& out = args.out;
  const ArenaScope scope(exec.scratch);
  Plan plan(args);
  TE_RETURN_IF_ERROR(SetTensorScales<T>(exec, args, plan));
  ClearPadding(out.scaling, out.rowwise_scale_inv, plan.rows, plan.columns);
  ClearPadding(out.scaling, out.columnwise_scale_inv, plan.columns, plan.rows);
  const bool count = out.scaling == QuantScaling::kTensor && out.amax != nullptr;
  if (!plan.rowwise && !plan.columnwise && !count) return OkStatus();
  SharedMaximum maximum;
  ForEachTile<T>(exec, args.x, [&](const Tile<T>& tile) {
    if (count) maximum.Include(MaxAbsBits(tile));
    QuantizeTile(plan, tile);
  });
  if (count && !(*out.amax >= maximum.value())) *out.amax = maximum.value();
  return OkStatus();
}

}  // namespace

Status QuantizeCpu(const Exec& exec, const QuantizeArgs& args) {
  TE_RETURN_IF_ERROR(ValidateQuantize(args));
  return args.x.dtype() == DType::kFloat32 ? Run<float>(exec, args) : Run<bfloat16>(exec, args);
}

}  // namespace te
