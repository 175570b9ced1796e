// Whether FP8 attention pays on this card: its forward and backward operations beside those of
// BF16, with the casts that either needs around it in a layer, and what it costs in accuracy.
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
    const double bf16 = Timed("bf16 forward", &ShapeBench::Bf16Forward, flops) +
                        Timed("bf16 backward", &ShapeBench::Bf16Backward, 2.5 * flops);
    const double cast_out = Timed("out to fp8 and its transpose", &ShapeBench::CastOut, 0);
    const double cast_qkv = Timed("fp8: q, k, v to fp8", &ShapeBench::CastQkv, 0);
    const double forward = Timed("fp8 forward", &ShapeBench::Fp8Forward, flops);
    PrintPlan();
    const double out = Timed("fp8: out to bf16", &ShapeBench::OutToBf16, 0);
    const double cast_dout = Timed("fp8: dout to fp8", &ShapeBench::CastDout, 0);
    const double backward = Timed("fp8 backward", &ShapeBench::Fp8Backward, 2.5 * flops);
    PrintPlan();
    const double dqkv = Timed("fp8: dq, dk, dv to bf16", &ShapeBench::DqkvToBf16, 0);
    const double fp8 = forward + backward, casts = cast_qkv + out + cast_dout + dqkv;
    fmt::print(
        "  sum, bf16: {:.1f} us; fp8: {:.1f} us, {:.2f}x as fast; without the casts {:.2f}x\n",
        (bf16 + cast_out) * 1e6, (fp8 + casts + cast_out) * 1e6,
        (bf16 + cast_out) / (fp8 + casts + cast_out), bf16 / fp8);
    return Accuracy();
  }

 private:
  // One rotation.
  struct Buffers {
    Tensor qkv, dqkv, out, dout;  // BF16, [tokens, columns]
    Tensor lse, lse8;             // of the BF16 and the FP8 forward pass
    Tensor q8, k8, v8, out8, out8_transposed, dout8, dq8, dk8, dv8;  // codes
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
      fmt::print("  {:<46}error: {}\n", name, seconds.status().message());
      return std::nan("");
    }
    fmt::print("  {:<46}{:>10.1f} us", name, *seconds * 1e6);
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
      sets_.push_back(std::move(b));
    }
    TE_ASSIGN_OR_RETURN(numbers_, context_->NewTensor(DType::kFloat32, {3 * kScaledTensors * 4}));
    return context_->Synchronize();
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
  Status Fp8Forward(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    return context_->kernels().attention_fp8_forward(context_->exec(),
                                                     {.q = Input(OfQ(b.q8.view()), kQkv),
                                                      .k = Input(OfKv(b.k8.view()), kQkv),
                                                      .v = Input(OfKv(b.v8.view()), kQkv),
                                                      .softmax_scale = SoftmaxScale(),
                                                      .s = {.scale = Scale(kS), .amax = AmaxOf(kS)},
                                                      .out = Output(OfQ(b.out8.view()), kO),
                                                      .lse = b.lse8.view()});
  }
  Status Fp8Backward(int i) {
    const Buffers& b = sets_[static_cast<size_t>(i)];
    return context_->kernels().attention_fp8_backward(
        context_->exec(), {.q = Input(OfQ(b.q8.view()), kQkv),
                           .k = Input(OfKv(b.k8.view()), kQkv),
                           .v = Input(OfKv(b.v8.view()), kQkv),
                           .out = Input(OfQ(b.out8.view()), kO),
                           .dout = Input(OfQ(b.dout8.view()), kDo),
                           .lse = b.lse8.view(),
                           .softmax_scale = SoftmaxScale(),
                           .gradient_format = kGradientFormat,
                           .s = {.scale = Scale(kS)},
                           .dp = {.scale = Scale(kDp), .amax = AmaxOf(kDp)},
                           .dq = Output(OfQ(b.dq8.view()), kDqkv),
                           .dk = Output(OfKv(b.dk8.view()), kDqkv),
                           .dv = Output(OfKv(b.dv8.view()), kDqkv)});
  }
  Status Cast(const TensorView& x, Scaled t, const Tensor& codes, const TensorView& transposed) {
    QuantSpec spec;
    spec.format = FormatOf(t);
    spec.scale = Scale(t);
    spec.scale_inv = ScaleInv(t);
    spec.amax = AmaxOf(t);
    spec.rowwise_data = codes.view();
    spec.columnwise_data = transposed;
    return context_->kernels().quantize(context_->exec(), {.x = x, .out = spec});
  }
  Status Back(const Tensor& codes, Scaled t, const TensorView& y) {
    QuantSpec spec;
    spec.format = FormatOf(t);
    spec.scale_inv = ScaleInv(t);
    spec.rowwise_data = codes.view();
    return context_->kernels().dequantize(
        context_->exec(), {.x = spec, .orientation = Orientation::kRowwise, .y = y});
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
  Tensor numbers_;
};

Status RunBench(const std::string& filter, bool hot) {
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Create({.device = "cuda"}));
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
