#include "te_kernels/quantize/quantize.h"
#include "te_kernels/testing/bench_against_copy.h"
#include "te_kernels/testing/cpu_exec.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

constexpr int64_t kRows = 4096, kColumns = 4096;

constexpr QuantFormat kE4M3 = QuantFormat::kFloat8E4M3, kE2M1 = QuantFormat::kFloat4E2M1;
constexpr bool kBoth = true, kRowwise = false;

// bfloat16 x, read once (twice where the scale comes from the whole tensor).
void BenchQuantize(benchmark::State& state, QuantFormat format, QuantScaling scaling, bool both) {
  const auto threads = static_cast<int>(state.range(0));
  const test::FilledTensor x(DType::kBFloat16, {kRows, kColumns});
  const test::HostTensor rowwise(DType::kUInt8, QuantDataShape(format, kRows, kColumns));
  const test::HostTensor columnwise(DType::kUInt8, QuantDataShape(format, kColumns, kRows));
  const bool blocks = BlockScaleShape(scaling, 1, 1).rank() != 0;
  const Shape scales = blocks ? BlockScaleShape(scaling, kRows, kColumns) : Shape{1};
  const test::HostTensor rowwise_scales(BlockScaleDType(scaling), scales);
  const test::HostTensor columnwise_scales(BlockScaleDType(scaling), scales);
  const float scale = 3;
  float scale_inv = 0, amax[2] = {};
  QuantSpec out;
  out.format = format;
  out.scaling = scaling;
  out.scale = &scale;
  out.scale_inv = &scale_inv;
  out.amax = amax;
  out.rowwise_data = rowwise;
  if (blocks) out.rowwise_scale_inv = rowwise_scales;
  if (both) {
    out.columnwise_data = columnwise;
    if (blocks) out.columnwise_scale_inv = columnwise_scales;
  }
  const bool two_reads =
      BlockOf(scaling).rows == 0 ? scaling == QuantScaling::kTensorCurrent : format == kE2M1;
  const auto codes = static_cast<int64_t>(rowwise.view().bytes()) * (both ? 2 : 1);
  const int64_t bytes = kRows * kColumns * 2 * (two_reads ? 2 : 1) + codes;
  test::CpuExec exec(threads);
  test::BenchAgainstCopy(state, bytes, threads,
                         [&] { return QuantizeCpu(exec, {.x = x, .out = out}).ok(); });
}

#define TE_BENCH(name, ...) \
  BENCHMARK_CAPTURE(BenchQuantize, name, __VA_ARGS__)->Arg(1)->Arg(2)->UseManualTime()

TE_BENCH(tensor_rowwise, kE4M3, QuantScaling::kTensor, kRowwise);
TE_BENCH(tensor, kE4M3, QuantScaling::kTensor, kBoth);
TE_BENCH(tensor_current, kE4M3, QuantScaling::kTensorCurrent, kBoth);
TE_BENCH(block_1x128, kE4M3, QuantScaling::kBlock1x128, kBoth);
TE_BENCH(block_128x128, kE4M3, QuantScaling::kBlock128x128, kBoth);
TE_BENCH(mx_1x32, kE4M3, QuantScaling::kMx1x32, kBoth);
TE_BENCH(nvfp4_1x16, kE2M1, QuantScaling::kNvfp4_1x16, kBoth);
TE_BENCH(nvfp4_16x16, kE2M1, QuantScaling::kNvfp4_16x16, kBoth);

}  // namespace
}  // namespace te
