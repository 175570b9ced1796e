#include <string>

#include "te_kernels/attention/attention_cudnn.h"
#include "te_kernels/attention/attention_fp8.h"
#include "te_kernels/attention/attention_scalars_cuda.h"
#include "te_kernels/cuda/cuda_state.h"

namespace te {
namespace {

void* Pointer(const float* scalar) { return const_cast<float*>(scalar); }

// What cuDNN's engines of compute capability 9.0 take, in words of our own; it may refuse more.
Status CheckLimits(const Exec& exec, const char* op, const ConstTensorView& q,
                   const AttentionMask& mask, std::initializer_list<ConstTensorView> tensors) {
  constexpr int64_t kHeadDim = 128;
  constexpr int64_t kAlignment = 16;
  TE_ASSIGN_OR_RETURN(const cuda::CudaState* state, cuda::GetCudaState(exec));
  if (state->compute_capability() < 90) {
    return Unsupported("{}: the device has compute capability {}.{}; expected 9.0 or above", op,
                       state->compute_capability() / 10, state->compute_capability() % 10);
  }
  if (q.dim(3) != kHeadDim)
    return Unsupported("{}: head_dim is {}; expected {}", op, q.dim(3), kHeadDim);
  if (UsesPadding(mask.type) && !mask.padding_on_the_right) {
    return Unsupported("{}: the mask type is {}; expected padding_on_the_right with it", op,
                       Name(mask.type));
  }
  for (const ConstTensorView& t : tensors) {
    bool aligned = reinterpret_cast<uintptr_t>(t.data()) % kAlignment == 0;
    for (int axis = 0; axis < 3; ++axis)
      aligned = aligned && (t.dim(axis) == 1 || t.stride(axis) % kAlignment == 0);
    if (!aligned) {
      return Unsupported(
          "{}: codes {} at {}; expected strides and address that are multiples of {}", op,
          t.ToString(), t.data(), kAlignment);
    }
  }
  return OkStatus();
}

// Single numbers of one call, in scratch.
class Scalars {
 public:
  static StatusOr<Scalars> Allocate(const Exec& exec) {
    TE_ASSIGN_OR_RETURN(const TensorView memory,
                        exec.scratch->Allocate(DType::kFloat32, {kCount * kStride}));
    return Scalars(memory.as<float>());
  }
  // Each at a 16-byte boundary of its own.
  float* Next() { return memory_ + kStride * next_++; }

 private:
  static constexpr int64_t kCount = 6, kStride = 4;
  explicit Scalars(float* memory) : memory_(memory) {}

  float* memory_;
  int64_t next_ = 0;
};

int64_t BytesOf(std::initializer_list<ConstTensorView> tensors) {
  int64_t bytes = 0;
  for (const ConstTensorView& t : tensors) bytes += static_cast<int64_t>(t.bytes());
  return bytes;
}

// Returns whether what ran is deterministic.
StatusOr<bool> RunGraph(const Exec& exec, const char* op, const SdpaProblem& problem,
                        const AttentionMask& mask, const SdpaPointers& scalars) {
  TE_ASSIGN_OR_RETURN(const ConstTensorView lengths, SequenceLengthsOf(exec, mask, problem.q));
  SdpaProblem with_lengths = problem;
  with_lengths.lengths = lengths.defined();
  with_lengths.deterministic = !problem.backward || !exec.allow_nondeterministic;
  std::string refusal;
  TE_ASSIGN_OR_RETURN(bool done, RunSdpa(exec, with_lengths, lengths, scalars, &refusal));
  if (!done && !with_lengths.deterministic) {
    with_lengths.deterministic = true;
    TE_ASSIGN_OR_RETURN(done, RunSdpa(exec, with_lengths, lengths, scalars, &refusal));
  }
  if (!done) return Unsupported("{}: {}", op, refusal);
  return with_lengths.deterministic;
}

}  // namespace

Status AttentionFp8ForwardCuda(const Exec& exec, const AttentionFp8ForwardArgs& args) {
  constexpr const char* kOp = "attention_fp8_forward";
  TE_RETURN_IF_ERROR(ValidateAttentionFp8Forward(args));
  const ConstTensorView &q = args.q.codes, &k = args.k.codes, &v = args.v.codes;
  TE_RETURN_IF_ERROR(CheckLimits(exec, kOp, q, args.mask, {q, k, v, args.out.codes}));
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(Scalars scalars, Scalars::Allocate(exec));
  float* const descale_s = scalars.Next();
  float* const amax_s = scalars.Next();
  float* const amax_o = scalars.Next();
  TE_RETURN_IF_ERROR(
      InvertScalarsCuda(exec, {{{args.s.scale, descale_s}, {args.out.scale, args.out.scale_inv}}}));
  TE_RETURN_IF_ERROR(RunGraph(exec, kOp,
                              {.q = q,
                               .k = k,
                               .v = v,
                               .out = args.out.codes,
                               .lse = args.lse,
                               .mask = args.mask.type,
                               .window_left = -1,
                               .scale = args.softmax_scale,
                               .lengths = false,
                               .backward = false,
                               .fp8 = true},
                              args.mask,
                              {{kSdpaDescaleQ, Pointer(args.q.scale_inv)},
                               {kSdpaDescaleK, Pointer(args.k.scale_inv)},
                               {kSdpaDescaleV, Pointer(args.v.scale_inv)},
                               {kSdpaDescaleS, descale_s},
                               {kSdpaScaleS, Pointer(args.s.scale)},
                               {kSdpaScaleO, Pointer(args.out.scale)},
                               {kSdpaAmaxS, amax_s},
                               {kSdpaAmaxO, amax_o}})
                         .status());
  Record(exec, kOp, "cudnn_sdpa_fp8", DType::kFloat8E4M3,
         BytesOf({q, k, v, args.out.codes, args.lse}));
  return AccumulateAmaxesCuda(exec, {{{amax_s, args.s.amax}, {amax_o, args.out.amax}}});
}

Status AttentionFp8BackwardCuda(const Exec& exec, const AttentionFp8BackwardArgs& args) {
  constexpr const char* kOp = "attention_fp8_backward";
  TE_RETURN_IF_ERROR(ValidateAttentionFp8Backward(args));
  const ConstTensorView &q = args.q.codes, &k = args.k.codes, &v = args.v.codes,
                        &out = args.out.codes, &dout = args.dout.codes;
  const std::initializer_list<ConstTensorView> tensors = {
      q, k, v, out, dout, args.dq.codes, args.dk.codes, args.dv.codes};
  TE_RETURN_IF_ERROR(CheckLimits(exec, kOp, q, args.mask, tensors));
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(Scalars scalars, Scalars::Allocate(exec));
  float* const descale_s = scalars.Next();
  float* const descale_dp = scalars.Next();
  float* const amax_dp = scalars.Next();
  float* const amax_dq = scalars.Next();
  float* const amax_dk = scalars.Next();
  float* const amax_dv = scalars.Next();
  TE_RETURN_IF_ERROR(InvertScalarsCuda(exec, {{{args.s.scale, descale_s},
                                               {args.dp.scale, descale_dp},
                                               {args.dq.scale, args.dq.scale_inv},
                                               {args.dk.scale, args.dk.scale_inv},
                                               {args.dv.scale, args.dv.scale_inv}}}));
  TE_ASSIGN_OR_RETURN(const bool deterministic,
                      RunGraph(exec, kOp,
                               {.q = q,
                                .k = k,
                                .v = v,
                                .out = out,
                                .dout = dout,
                                .lse = args.lse,
                                .dq = args.dq.codes,
                                .dk = args.dk.codes,
                                .dv = args.dv.codes,
                                .mask = args.mask.type,
                                .window_left = -1,
                                .scale = args.softmax_scale,
                                .lengths = false,
                                .backward = true,
                                .fp8 = true,
                                .gradient_format = args.gradient_format},
                               args.mask,
                               {{kSdpaDescaleQ, Pointer(args.q.scale_inv)},
                                {kSdpaDescaleK, Pointer(args.k.scale_inv)},
                                {kSdpaDescaleV, Pointer(args.v.scale_inv)},
                                {kSdpaDescaleO, Pointer(args.out.scale_inv)},
                                {kSdpaDescaleDo, Pointer(args.dout.scale_inv)},
                                {kSdpaDescaleS, descale_s},
                                {kSdpaDescaleDp, descale_dp},
                                {kSdpaScaleS, Pointer(args.s.scale)},
                                {kSdpaScaleDp, Pointer(args.dp.scale)},
                                {kSdpaScaleDq, Pointer(args.dq.scale)},
                                {kSdpaScaleDk, Pointer(args.dk.scale)},
                                {kSdpaScaleDv, Pointer(args.dv.scale)},
                                {kSdpaAmaxDp, amax_dp},
                                {kSdpaAmaxDq, amax_dq},
                                {kSdpaAmaxDk, amax_dk},
                                {kSdpaAmaxDv, amax_dv}}));
  Record(exec, kOp,
         deterministic ? "cudnn_sdpa_fp8_backward" : "cudnn_sdpa_fp8_backward_nondeterministic",
         args.gradient_format == QuantFormat::kFloat8E5M2 ? DType::kFloat8E5M2 : DType::kFloat8E4M3,
         BytesOf(tensors) + static_cast<int64_t>(args.lse.bytes()));
  return AccumulateAmaxesCuda(exec, {{{amax_dp, args.dp.amax},
                                      {amax_dq, args.dq.amax},
                                      {amax_dk, args.dk.amax},
                                      {amax_dv, args.dv.amax}}});
}

}  // namespace te
