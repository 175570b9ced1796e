#include <algorithm>
#include <cmath>
#include <vector>

#include "te_kernels/attention/attention_float_cpu.h"
#include "te_kernels/attention/attention_fp8.h"
#include "te_kernels/base/parallel.h"

namespace te {
namespace {

// The values of codes, dense.
StatusOr<TensorView> Values(const Exec& exec, const Float8Input& x, QuantFormat format) {
  const ConstTensorView& codes = x.codes;
  TE_ASSIGN_OR_RETURN(const TensorView y, exec.scratch->Allocate(DType::kFloat32, codes.shape()));
  const auto& values = format == QuantFormat::kFloat8E4M3 ? kFloat8E4M3Values : kFloat8E5M2Values;
  const int64_t tokens = codes.dim(1), heads = codes.dim(2), width = codes.dim(3);
  ParallelFor(exec, codes.dim(0) * tokens, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t h = 0; h < heads; ++h) {
        const uint8_t* from =
            codes.Select(0, r / tokens).Select(0, r % tokens).Select(0, h).as<uint8_t>();
        float* to = y.as<float>() + (r * heads + h) * width;
        for (int64_t c = 0; c < width; ++c) to[c] = values[from[c]] * *x.scale_inv;
      }
    }
  });
  return y;
}

// Codes, amax and scale_inv of a dense float32 tensor.
void Quantize(const Exec& exec, const TensorView& x, QuantFormat format, const Float8Output& out) {
  const bool e4m3 = format == QuantFormat::kFloat8E4M3;
  const float scale = *out.scale;
  const int64_t tokens = x.dim(1), heads = x.dim(2), width = x.dim(3);
  std::vector<float> amaxes(static_cast<size_t>(x.dim(0) * tokens));
  ParallelFor(exec, x.dim(0) * tokens, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float& amax = amaxes[static_cast<size_t>(r)];
      for (int64_t h = 0; h < heads; ++h) {
        const float* from = x.as<float>() + (r * heads + h) * width;
        uint8_t* to =
            out.codes.Select(0, r / tokens).Select(0, r % tokens).Select(0, h).as<uint8_t>();
        for (int64_t c = 0; c < width; ++c) {
          amax = std::fmax(amax, std::fabs(from[c]));
          to[c] = e4m3 ? FloatToFloat8E4M3Bits(from[c] * scale)
                       : FloatToFloat8E5M2Bits(from[c] * scale);
        }
      }
    }
  });
  *out.scale_inv = 1.0f / scale;
  if (out.amax != nullptr)
    *out.amax = std::fmax(*out.amax, *std::max_element(amaxes.begin(), amaxes.end()));
}

constexpr QuantFormat kForwardFormat = QuantFormat::kFloat8E4M3;

}  // namespace

Status AttentionFp8ForwardCpu(const Exec& exec, const AttentionFp8ForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateAttentionFp8Forward(args));
  const ArenaScope scope(exec.scratch);
  AttentionForwardArgs in_float = {
      .mask = args.mask, .softmax_scale = args.softmax_scale, .lse = args.lse};
  TE_ASSIGN_OR_RETURN(in_float.q, Values(exec, args.q, kForwardFormat));
  TE_ASSIGN_OR_RETURN(in_float.k, Values(exec, args.k, kForwardFormat));
  TE_ASSIGN_OR_RETURN(in_float.v, Values(exec, args.v, kForwardFormat));
  TE_ASSIGN_OR_RETURN(in_float.out,
                      exec.scratch->Allocate(DType::kFloat32, args.out.codes.shape()));
  float amax_s = 0;
  TE_RETURN_IF_ERROR(AttentionForwardRoundedCpu(
      exec, in_float, {.format = kForwardFormat, .scale = *args.s.scale}, &amax_s));
  if (args.s.amax != nullptr) *args.s.amax = std::fmax(*args.s.amax, amax_s);
  Quantize(exec, in_float.out, kForwardFormat, args.out);
  return OkStatus();
}

Status AttentionFp8BackwardCpu(const Exec& exec, const AttentionFp8BackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateAttentionFp8Backward(args));
  const ArenaScope scope(exec.scratch);
  AttentionBackwardArgs in_float = {
      .lse = args.lse, .mask = args.mask, .softmax_scale = args.softmax_scale};
  TE_ASSIGN_OR_RETURN(in_float.q, Values(exec, args.q, kForwardFormat));
  TE_ASSIGN_OR_RETURN(in_float.k, Values(exec, args.k, kForwardFormat));
  TE_ASSIGN_OR_RETURN(in_float.v, Values(exec, args.v, kForwardFormat));
  TE_ASSIGN_OR_RETURN(in_float.out, Values(exec, args.out, kForwardFormat));
  TE_ASSIGN_OR_RETURN(in_float.dout, Values(exec, args.dout, args.gradient_format));
  const struct {
    const Float8Output& to;
    TensorView& in_float;
  } outputs[] = {{args.dq, in_float.dq}, {args.dk, in_float.dk}, {args.dv, in_float.dv}};
  for (const auto& output : outputs) {
    TE_ASSIGN_OR_RETURN(output.in_float,
                        exec.scratch->Allocate(DType::kFloat32, output.to.codes.shape()));
  }
  float amax_dp = 0;
  TE_RETURN_IF_ERROR(AttentionBackwardRoundedCpu(
      exec, in_float, {.format = kForwardFormat, .scale = *args.s.scale},
      {.format = args.gradient_format, .scale = *args.dp.scale}, &amax_dp));
  if (args.dp.amax != nullptr) *args.dp.amax = std::fmax(*args.dp.amax, amax_dp);
  for (const auto& output : outputs)
    Quantize(exec, output.in_float, args.gradient_format, output.to);
  return OkStatus();
}

}  // namespace te
