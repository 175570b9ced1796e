// Whether FP8 attention pays on this card: its forward and backward operations beside those of
// BF16, with the rotations and casts that either needs around it in a layer of FP8 products, and
// what it costs in accuracy. FP8 stands there twice: with each cast as a pass of its own, as where
// queries, keys and values do not lie side by side, and with the casts in the rotation's kernels.
//
//   with_cuda bin/fp8_attention [--filter TEXT] [--hot]
//
// Nothing that fails ends the run: its row says why.
#include <CLI/CLI.hpp>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "bench/operation_timer.h"
#include "fmt/format.h"
#include "te_kernels/attention/sdpa_graph.h"
#include "te_kernels/cuda/cuda_state.h"

namespace te::bench {
namespace {

constexpr QuantFormat kForwardFormat = QuantFormat::kFloat8E4M3;
constexpr QuantFormat kGradientFormat = QuantFormat::kFloat8E5M2;
constexpr int64_t kHeadDim = 128;

struct AttentionShape {
  int64_t batch, sequence, heads, groups;
  int64_t tokens() const { return batch * sequence; }
  int64_t q_width() const { return heads * kHeadDim; }
  int64_t kv_width() const { return groups * kHeadDim; }
  std::string ToString() const {
    return fmt::format("{}x{} {}/{}", batch, sequence, heads, groups);
  }
};

constexpr AttentionShape kShapes[] = {{8, 256, 32, 32}, {8, 256, 32, 8},    {1, 4096, 32, 32},
                                      {1, 4096, 32, 8}, {1, 16384, 32, 32}, {1, 16384, 32, 8}};

// The tensors with a scale of their own; q, k and v share one, dq, dk and dv do.
enum Scaled { kQkv, kS, kO, kDo, kDp, kDqkv, kScaledTensors };
QuantFormat FormatOf(Scaled tensor) { return tensor < kDo ? kForwardFormat : kGradientFormat; }

// q, k and v as columns of one buffer, or their gradients, as rows of tokens.
struct Parts {
  TensorView q, k, v;
};

class ShapeBench {
 public:
  ShapeBench(OperationTimer* timer, const AttentionShape& shape)
      : timer_(timer), context_(timer->context()), shape_(shape) {}

  Status Run() {
    TE_RETURN_IF_ERROR(Allocate());
    TE_RETURN_IF_ERROR(Calibrate());
    const double flops = ForwardFlops();
    using B = ShapeBench;
    const double rotate = Timed("bf16 q, k rotated", &B::Rotate, 0);
    const double bf16_forward = Timed("bf16 forward", &B::Bf16Forward, flops);
    const double bf16_backward = Timed("bf16 backward", &B::Bf16Backward, 2.5 * flops);
    const double cast_out = Timed("bf16 out to fp8 and its transpose", &B::CastOut, 0);
    const double rotate_back =
        Timed("bf16 dq, dk, dv rotated, to fp8 and its transpose", &B::RotateBack, 0);
    const double around = rotate + cast_out + rotate_back;

    const double cast_qkv = Timed("fp8: q, k, v to fp8", &B::CastQkv, 0);
    const double forward = Timed("fp8 forward", &B::Fp8Forward, flops);
    PrintPlan();
    const double out = Timed("fp8: out to bf16", &B::OutToBf16, 0);
    const double cast_dout = Timed("fp8: dout to fp8", &B::CastDout, 0);
    const double backward = Timed("fp8 backward", &B::Fp8Backward, 2.5 * flops);
    PrintPlan();
    const double dqkv = Timed("fp8: dq, dk, dv to bf16", &B::DqkvToBf16, 0);

    const double rotate_to_codes = Timed("fp8: q, k, v rotated to fp8", &B::RotateToCodes, 0);
    const double packed_forward = Timed("fp8 forward, packed", &B::PackedForward, flops);
    PrintPlan();
    const double requantize = Timed("fp8: out to fp8 of proj and its transpose", &B::OutToProj, 0);
    const double packed_backward = Timed("fp8 backward, packed", &B::PackedBackward, 2.5 * flops);
    PrintPlan();
    const double rotate_codes_back =
        Timed("fp8: dq, dk, dv rotated, to fp8 and its transpose", &B::RotateCodesBack, 0);

    const double bf16 = bf16_forward + bf16_backward, fp8 = forward + backward;
    const auto sum = [&](const char* name, double seconds) {
      fmt::print("  {:<52}{:>10.1f} us, {:.2f}x as fast as bf16\n", name, seconds * 1e6,
                 (bf16 + around) / seconds);
    };
    sum("sum, bf16", bf16 + around);
    sum("sum, fp8, casts apart", fp8 + around + cast_qkv + out + cast_dout + dqkv);
    sum("sum, fp8, casts in the rotation", packed_forward + packed_backward + rotate_to_codes +
                                               requantize + cast_dout + rotate_codes_back);
    fmt::print("  attention alone: {:.2f}x as fast, packed {:.2f}x\n", bf16 / fp8,
               bf16 / (packed_forward + packed_backward));
    return Accuracy();
  }

 private:
  // One rotation.
  struct Buffers {
    Tensor qkv, dqkv, out, dout;  // BF16, [tokens, columns]
    Tensor lse, lse8;             // of the BF16 and the FP8 forward pass
    Tensor q8, k8, v8, out8, out8_transposed, dout8, dq8, dk8, dv8;  // codes
    Tensor qkv8, dqkv8, dqkv8_transposed;                            // codes, side by side
  };
  using Operation = Status (ShapeBench::*)(int rotation);

  double ForwardFlops() const {  // two products of the visible half
    const double s = static_cast<double>(shape_.sequence);
    return 4 * static_cast<double>(shape_.batch * shape_.q_width()) * s * (s + 1) / 2;
  }

  // Seconds; NaN, which no sum hides, when it fails.
  double Timed(const char* name, Operation operation, double flops) {
    const StatusOr<double> seconds = timer_->Seconds(
        [this, operation](int i) { return (this->*operation)(i); }, static_cast<int>(sets_.size()));
    if (!seconds.ok()) {
      fmt::print("  {:<52}error: {}\n", name, seconds.status().message());
      return std::nan("");
    }
    fmt::print("  {:<52}{:>10.1f} us", name, *seconds * 1e6);
    if (flops > 0) fmt::print("{:>8.1f} TF/s", flops / *seconds * 1e-12);
    fmt::print("\n");
    std::fflush(stdout);
    return *seconds;
  }
  void PrintPlan() const {
    const StatusOr<cuda::CudaState*> state = cuda::GetCudaState(context_->exec());
    if (!state.ok() || SdpaCache::Of(*state)->last == nullptr) return;
    const SdpaGraph& graph = *SdpaCache::Of(*state)->last;
    const SdpaPlan& plan = graph.plans()[graph.chosen()];
    fmt::print("      plan {} of {}, workspace {} bytes\n", plan.config, graph.plans().size(),
               plan.workspace_bytes);
  }

  Status Allocate() {
    const int64_t tokens = shape_.tokens(), q = shape_.q_width(), kv = shape_.kv_width();
    const auto random = [&](int64_t columns) -> StatusOr<Tensor> {
      TE_ASSIGN_OR_RETURN(std::vector<Tensor> one,
                          timer_->Random(DType::kBFloat16, {tokens, columns}, 1));
      return std::move(one.front());
    };
    const auto codes = [&](int64_t columns) {
      return context_->NewTensor(DType::kUInt8, {tokens, columns});
    };
    const Shape lse = {shape_.batch, shape_.heads, shape_.sequence};
    const int count = OperationTimer::Rotations(2 * tokens * (q + kv));
    for (int i = 0; i < count; ++i) {
      Buffers b;
      TE_ASSIGN_OR_RETURN(b.qkv, random(q + 2 * kv));
      TE_ASSIGN_OR_RETURN(b.dqkv, random(q + 2 * kv));
      TE_ASSIGN_OR_RETURN(b.out, random(q));
      TE_ASSIGN_OR_RETURN(b.dout, random(q));
      TE_ASSIGN_OR_RETURN(b.lse, context_->NewTensor(DType::kFloat32, lse));
      TE_ASSIGN_OR_RETURN(b.lse8, context_->NewTensor(DType::kFloat32, lse));
      TE_ASSIGN_OR_RETURN(b.q8, codes(q));
      TE_ASSIGN_OR_RETURN(b.k8, codes(kv));
      TE_ASSIGN_OR_RETURN(b.v8, codes(kv));
      TE_ASSIGN_OR_RETURN(b.out8, codes(q));
      TE_ASSIGN_OR_RETURN(b.out8_transposed, context_->NewTensor(DType::kUInt8, {q, tokens}));
      TE_ASSIGN_OR_RETURN(b.dout8, codes(q));
      TE_ASSIGN_OR_RETURN(b.dq8, codes(q));
      TE_ASSIGN_OR_RETURN(b.dk8, codes(kv));
      TE_ASSIGN_OR_RETURN(b.dv8, codes(kv));
      TE_ASSIGN_OR_RETURN(b.qkv8, codes(q + 2 * kv));
      TE_ASSIGN_OR_RETURN(b.dqkv8, codes(q + 2 * kv));
      TE_ASSIGN_OR_RETURN(b.dqkv8_transposed,
                          context_->NewTensor(DType::kUInt8, {q + 2 * kv, tokens}));
      sets_.push_back(std::move(b));
    }
    TE_RETURN_IF_ERROR(MakeAngles());
    TE_ASSIGN_OR_RETURN(numbers_, context_->NewTensor(DType::kFloat32, {3 * kScaledTensors * 4}));
    return context_->Synchronize();
  }

  Status MakeAngles() {
    const Shape shape = {shape_.sequence, kHeadDim / 2};
    std::vector<float> cosines, sines;
    for (int64_t p = 0; p < shape[0]; ++p) {
      for (int64_t r = 0; r < shape[1]; ++r) {
        const double angle =
            static_cast<double>(p) * std::pow(1e4, -2.0 * static_cast<double>(r) / kHeadDim);
        cosines.push_back(static_cast<float>(std::cos(angle)));
        sines.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    TE_ASSIGN_OR_RETURN(cos_, context_->NewTensor(DType::kFloat32, shape));
    TE_ASSIGN_OR_RETURN(sin_, context_->NewTensor(DType::kFloat32, shape));
    TE_RETURN_IF_ERROR(context_->CopyFromHost(cosines.data(), cos_.view()));
    return context_->CopyFromHost(sines.data(), sin_.view());
  }

  // ----- Scales: each number at a 16-byte boundary

  float* Number(int i) const { return numbers_.view().as<float>() + 4 * i; }
  float* Scale(Scaled t) const { return Number(3 * t); }
  float* ScaleInv(Scaled t) const { return Number(3 * t + 1); }
  float* AmaxOf(Scaled t) const { return Number(3 * t + 2); }

  // The scale that the amax so far gives, as delayed scaling has it with margin 0; amax 0: 1.
  Status Rescale(std::initializer_list<Scaled> tensors) {
    std::array<float, 3 * kScaledTensors * 4> host{};
    TE_RETURN_IF_ERROR(context_->CopyToHost(numbers_.view(), host.data()));
    for (const Scaled t : tensors) {
      float* const at = host.data() + size_t{4} * 3 * t;
      const float scale = at[8] > 0 ? QuantMax(FormatOf(t)) / at[8] : 1;
      at[0] = scale;
      at[4] = 1 / scale;
      at[8] = 0;
    }
    return context_->CopyFromHost(host.data(), numbers_.view());
  }
  Status Calibrate() {
    TE_RETURN_IF_ERROR(context_->Zero(numbers_.view()));
    TE_RETURN_IF_ERROR(Rescale({kQkv, kS, kO, kDo, kDp, kDqkv}));
    const int last = static_cast<int>(sets_.size()) - 1;
    // Twice: an amax depends a little on the scales of what it is computed from.
    for (int pass = 0; pass < 2; ++pass) {
      for (int i = 0; i <= last; ++i) TE_RETURN_IF_ERROR(CastQkv(i));
      TE_RETURN_IF_ERROR(Rescale({kQkv}));
      for (int i = 0; i <= last; ++i) {
        TE_RETURN_IF_ERROR(CastQkv(i));
        TE_RETURN_IF_ERROR(Fp8Forward(i));
      }
      TE_RETURN_IF_ERROR(Rescale({kS, kO}));
      for (int i = 0; i <= last; ++i) TE_RETURN_IF_ERROR(CastDout(i));
      TE_RETURN_IF_ERROR(Rescale({kDo}));
      for (int i = 0; i <= last; ++i) {
        TE_RETURN_IF_ERROR(Fp8Forward(i));
        TE_RETURN_IF_ERROR(CastDout(i));
        TE_RETURN_IF_ERROR(Fp8Backward(i));
      }
      TE_RETURN_IF_ERROR(Rescale({kDp, kDqkv}));
    }
    return OkStatus();
  }

  // ----- Views

  // bfloat16, or codes.
  Parts Rows(const Tensor& packed) const {
    const TensorView x = packed.view();
    const int64_t q = shape_.q_width(), kv = shape_.kv_width();
    return {x.Slice(1, 0, q), x.Slice(1, q, q + kv), x.Slice(1, q + kv, q + 2 * kv)};
  }
  TensorView Heads(const TensorView& rows, int64_t heads) const {
    return rows.Split(0, shape_.batch, shape_.sequence).Split(2, heads, kHeadDim);
  }
  TensorView OfQ(const TensorView& rows) const { return Heads(rows, shape_.heads); }
  TensorView OfKv(const TensorView& rows) const { return Heads(rows, shape_.groups); }
  Float8Input Input(const TensorView& heads, Scaled t) const {
    return {.codes = heads, .scale_inv = ScaleInv(t)};
  }
  Float8Output Output(const TensorView& heads, Scaled t) const {
    return {.codes = heads, .scale = Scale(t), .scale_inv = ScaleInv(t), .amax = AmaxOf(t)};
  }
  static float SoftmaxScale() { return 1.0f / std::sqrt(static_cast<float>(kHeadDim)); }

  // ----- Operations on rotation i

  Status Bf16Forward(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    const Parts in = Rows(b.qkv);
    return context_->kernels().attention_forward(context_->exec(), {.q = OfQ(in.q),
                                                                    .k = OfKv(in.k),
                                                                    .v = OfKv(in.v),
                                                                    .softmax_scale = SoftmaxScale(),
                                                                    .out = OfQ(b.out.view()),
                                                                    .lse = b.lse.view()});
  }
  Status Bf16Backward(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    const Parts in = Rows(b.qkv), gradients = Rows(b.dqkv);
    return context_->kernels().attention_backward(context_->exec(),
                                                  {.q = OfQ(in.q),
                                                   .k = OfKv(in.k),
                                                   .v = OfKv(in.v),
                                                   .out = OfQ(b.out.view()),
                                                   .dout = OfQ(b.dout.view()),
                                                   .lse = b.lse.view(),
                                                   .softmax_scale = SoftmaxScale(),
                                                   .dq = OfQ(gradients.q),
                                                   .dk = OfKv(gradients.k),
                                                   .dv = OfKv(gradients.v)});
  }
  Status Fp8Forward(const Buffers& b, const Parts& in) {
    return context_->kernels().attention_fp8_forward(context_->exec(),
                                                     {.q = Input(OfQ(in.q), kQkv),
                                                      .k = Input(OfKv(in.k), kQkv),
                                                      .v = Input(OfKv(in.v), kQkv),
                                                      .softmax_scale = SoftmaxScale(),
                                                      .s = {.scale = Scale(kS), .amax = AmaxOf(kS)},
                                                      .out = Output(OfQ(b.out8.view()), kO),
                                                      .lse = b.lse8.view()});
  }
  Status Fp8Backward(const Buffers& b, const Parts& in, const Parts& gradients) {
    return context_->kernels().attention_fp8_backward(
        context_->exec(), {.q = Input(OfQ(in.q), kQkv),
                           .k = Input(OfKv(in.k), kQkv),
                           .v = Input(OfKv(in.v), kQkv),
                           .out = Input(OfQ(b.out8.view()), kO),
                           .dout = Input(OfQ(b.dout8.view()), kDo),
                           .lse = b.lse8.view(),
                           .softmax_scale = SoftmaxScale(),
                           .gradient_format = kGradientFormat,
                           .s = {.scale = Scale(kS)},
                           .dp = {.scale = Scale(kDp), .amax = AmaxOf(kDp)},
                           .dq = Output(OfQ(gradients.q), kDqkv),
                           .dk = Output(OfKv(gradients.k), kDqkv),
                           .dv = Output(OfKv(gradients.v), kDqkv)});
  }
  static Parts Apart(const Tensor& q, const Tensor& k, const Tensor& v) {
    return {q.view(), k.view(), v.view()};
  }
  Status Fp8Forward(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    return Fp8Forward(b, Apart(b.q8, b.k8, b.v8));
  }
  Status Fp8Backward(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    return Fp8Backward(b, Apart(b.q8, b.k8, b.v8), Apart(b.dq8, b.dk8, b.dv8));
  }
  Status PackedForward(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    return Fp8Forward(b, Rows(b.qkv8));
  }
  Status PackedBackward(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    return Fp8Backward(b, Rows(b.qkv8), Rows(b.dqkv8));
  }

  // All heads of a packed buffer, queries' and keys' rotated.
  RopeArgs Rotation(const Tensor& packed, bool inverse) const {
    const int64_t heads = shape_.heads + 2 * shape_.groups;
    return {.x = Heads(packed.view(), heads),
            .cos = cos_.view(),
            .sin = sin_.view(),
            .inverse = inverse,
            .num_rotated_heads = shape_.heads + shape_.groups};
  }
  Status Rotate(int i) {
    RopeArgs args = Rotation(sets_[static_cast<size_t>(i)].qkv, false);
    const TensorView rotated =
        Heads(sets_[static_cast<size_t>(i)].qkv.view(), shape_.heads + 2 * shape_.groups)
            .Slice(2, 0, args.num_rotated_heads);
    args.x = rotated;
    args.y = Sink(rotated);
    return context_->kernels().rope(context_->exec(), args);
  }
  Status RotateToCodes(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    RopeArgs args = Rotation(b.qkv, false);
    args.y.quant = Spec(kQkv, b.qkv8, TensorView());
    return context_->kernels().rope(context_->exec(), args);
  }
  // For the QKV product: any scale will do, here and below. The rows go where qkv8 was.
  Status RotateBack(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    RopeArgs args = Rotation(b.dqkv, true);
    args.y.quant = Spec(kDqkv, b.qkv8, b.dqkv8_transposed.view());
    return context_->kernels().rope(context_->exec(), args);
  }
  Status RotateCodesBack(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    RopeArgs args = Rotation(b.dqkv8, true);
    args.x_format = FormatOf(kDqkv);
    args.x_scale_inv = ScaleInv(kDqkv);
    args.y.quant = Spec(kDo, b.qkv8, b.dqkv8_transposed.view());
    return context_->kernels().rope(context_->exec(), args);
  }
  Status OutToProj(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    DequantizeArgs args = {.x = Spec(kO, b.out8, TensorView())};
    args.y.quant = Spec(kQkv, b.dq8, b.out8_transposed.view());
    return context_->kernels().dequantize(context_->exec(), args);
  }

  QuantSpec Spec(Scaled t, const Tensor& codes, const TensorView& transposed) const {
    QuantSpec spec;
    spec.format = FormatOf(t);
    spec.scale = Scale(t);
    spec.scale_inv = ScaleInv(t);
    spec.amax = AmaxOf(t);
    spec.rowwise_data = codes.view();
    spec.columnwise_data = transposed;
    return spec;
  }
  Status Cast(const TensorView& x, Scaled t, const Tensor& codes, const TensorView& transposed) {
    return context_->kernels().quantize(context_->exec(),
                                        {.x = x, .out = Spec(t, codes, transposed)});
  }
  Status Back(const Tensor& codes, Scaled t, const TensorView& y) {
    return context_->kernels().dequantize(context_->exec(),
                                          {.x = Spec(t, codes, TensorView()), .y = y});
  }
  // For the output projection; any scale will do.
  Status CastOut(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    return Cast(b.out.view(), kO, b.dq8, b.out8_transposed.view());
  }
  Status CastQkv(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    const Parts in = Rows(b.qkv);
    TE_RETURN_IF_ERROR(Cast(in.q, kQkv, b.q8, TensorView()));
    TE_RETURN_IF_ERROR(Cast(in.k, kQkv, b.k8, TensorView()));
    return Cast(in.v, kQkv, b.v8, TensorView());
  }
  Status CastDout(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    return Cast(b.dout.view(), kDo, b.dout8, TensorView());
  }
  Status OutToBf16(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    return Back(b.out8, kO, b.out.view());
  }
  Status DqkvToBf16(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    const Parts gradients = Rows(b.dqkv);
    TE_RETURN_IF_ERROR(Back(b.dq8, kDqkv, gradients.q));
    TE_RETURN_IF_ERROR(Back(b.dk8, kDqkv, gradients.k));
    return Back(b.dv8, kDqkv, gradients.v);
  }

  // ----- Accuracy, of rotation 0 against BF16 of the same inputs

  StatusOr<std::vector<double>> Values(const Tensor& bf16) {
    std::vector<uint16_t> bits(static_cast<size_t>(bf16.shape().elements()));
    TE_RETURN_IF_ERROR(context_->CopyToHost(bf16.view(), bits.data()));
    std::vector<double> out;
    out.reserve(bits.size());
    for (const uint16_t b : bits)
      out.push_back(static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(b) << 16)));
    return out;
  }
  // ||a - b|| / ||b|| of columns [begin, end) of rows.
  static double Error(const std::vector<double>& a, const std::vector<double>& b, int64_t width,
                      int64_t begin, int64_t end) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      const int64_t column = static_cast<int64_t>(i) % width;
      if (column < begin || column >= end) continue;
      difference += (a[i] - b[i]) * (a[i] - b[i]);
      norm += b[i] * b[i];
    }
    return std::sqrt(difference / norm);
  }
  Status Accuracy() {
    const Buffers& b = sets_.front();
    TE_RETURN_IF_ERROR(Bf16Forward(0));
    TE_RETURN_IF_ERROR(Bf16Backward(0));
    TE_ASSIGN_OR_RETURN(const auto out, Values(b.out));
    TE_ASSIGN_OR_RETURN(const auto dqkv, Values(b.dqkv));
    for (const Operation operation :
         {&ShapeBench::CastQkv, &ShapeBench::Fp8Forward, &ShapeBench::OutToBf16,
          &ShapeBench::CastDout, &ShapeBench::Fp8Backward, &ShapeBench::DqkvToBf16})
      TE_RETURN_IF_ERROR((this->*operation)(0));
    TE_ASSIGN_OR_RETURN(const auto out8, Values(b.out));
    TE_ASSIGN_OR_RETURN(const auto dqkv8, Values(b.dqkv));
    const int64_t q = shape_.q_width(), kv = shape_.kv_width(), all = q + 2 * kv;
    fmt::print("  error of the norm: out {:.4f}, dq {:.4f}, dk {:.4f}, dv {:.4f}\n",
               Error(out8, out, q, 0, q), Error(dqkv8, dqkv, all, 0, q),
               Error(dqkv8, dqkv, all, q, q + kv), Error(dqkv8, dqkv, all, q + kv, all));
    std::fflush(stdout);
    return OkStatus();
  }

  OperationTimer* timer_;
  Context* context_;
  AttentionShape shape_;
  std::vector<Buffers> sets_;  // so many that the L2 cache keeps nothing
  Tensor numbers_, cos_, sin_;
};

Status RunBench(const std::string& filter, bool hot) {
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Create({.device = "cuda"}));
  // A run meets more shapes than a training step.
  context->device().ConfigureSearches(context->exec(), {.limit_seconds = 1e6});
  TE_ASSIGN_OR_RETURN(const auto machine, DescribeMachine(context->device()));
  for (const auto& [name, value] : machine) fmt::print("{}: {}\n", name, value);
  TE_ASSIGN_OR_RETURN(OperationTimer timer, OperationTimer::Make(context.get()));
  if (hot) TE_RETURN_IF_ERROR(timer.StayHot());
  for (const AttentionShape& shape : kShapes) {
    if (shape.ToString().find(filter) == std::string::npos) continue;
    fmt::print("\n{} (batch x sequence, heads / key-value heads of {}), causal\n", shape.ToString(),
               kHeadDim);
    const Status status = ShapeBench(&timer, shape).Run();
    if (!status.ok()) fmt::print("  error: {}\n", status.message());
    std::fflush(stdout);
  }
  return OkStatus();
}

}  // namespace
}  // namespace te::bench

int main(int argc, char** argv) {
  std::string filter;
  bool hot = false;
  CLI::App app("Times FP8 attention beside BF16's, with the casts around it.", "fp8_attention");
  app.add_option("--filter", filter, "Only shapes whose name holds this text: '1x4096 32/8'");
  app.add_flag("--hot", hot,
               "Matrix products before each timing: the card has the clock that it has in a step");
  CLI11_PARSE(app, argc, argv);
  if (const te::Status status = te::bench::RunBench(filter, hot); !status.ok()) {
    fmt::print(stderr, "fp8_attention: error: {}\n", status.message());
    return 2;
  }
  return 0;
}
