// Whether FP8 attention pays on this card: cuDNN's FP8 forward and backward passes beside the BF16
// ones, with the casts that either needs around it, and whether the results are right and repeat.
//
//   with_cuda bin/fp8_attention [--filter TEXT] [--hot]
//
// Nothing that fails ends the run: its row says why.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "bench/fp8_attention_operands.h"
#include "bench/fp8_sdpa.h"
#include "bench/operation_timer.h"
#include "fmt/format.h"

namespace te::bench {
namespace {

constexpr QuantFormat kForwardFormat = AttentionOperands::kForwardFormat;
constexpr QuantFormat kGradientFormat = AttentionOperands::kGradientFormat;
constexpr int kRepeats = 8;
// Of the shapes for which all variants are tried: a plan takes up to seconds to compile.
constexpr int64_t kVariantsSequence = 4096;
constexpr size_t kMaxPlans = 6;

constexpr AttentionShape kShapes[] = {{8, 256, 32, 32}, {8, 256, 32, 8},    {1, 4096, 32, 32},
                                      {1, 4096, 32, 8}, {1, 16384, 32, 32}, {1, 16384, 32, 8}};

// The root mean square of the relative error of rounding to a format whose half unit in the last
// place is u at 1: with mantissas m spread evenly over [1, 2), u / sqrt(3) * sqrt(E[1 / m^2] =
// 1/2).
double RoundingError(QuantFormat format) {
  return (format == QuantFormat::kFloat8E5M2 ? 0x1p-3 : 0x1p-4) / std::sqrt(6.0);
}

// Two roundings in a row, doubled. The roundings of a sum's terms are independent, so that the
// sum's relative error is that of a term.
double Limit(QuantFormat first, QuantFormat second) {
  return 2 * std::hypot(RoundingError(first), RoundingError(second));
}

// ||a - b|| / ||b||.
double RelativeError(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::quiet_NaN();
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double expected = static_cast<double>(b[i]), d = static_cast<double>(a[i]) - expected;
    difference += d * d;
    norm += expected * expected;
  }
  return std::sqrt(difference / norm);
}

double LargestOf(const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return static_cast<double>(largest);
}

// ----- Rows

// Says what went wrong, if anything did.
void Report(const std::string& name, const Status& status) {
  if (!status.ok()) fmt::print("  {:<46}error: {}\n", name, status.message());
  std::fflush(stdout);
}
void PrintTime(const std::string& name, double seconds, double flops) {
  fmt::print("  {:<46}{:>10.1f} us", name, seconds * 1e6);
  if (flops > 0) fmt::print("{:>8.1f} TF/s", flops / seconds * 1e-12);
  fmt::print("\n");
  std::fflush(stdout);
}
void PrintValue(const std::string& name, double value) {
  fmt::print("  {:<46}{:>10.5f}\n", name, value);
}
void PrintError(const std::string& name, double error, double limit) {
  fmt::print("  {:<46}{:>10.5f}    limit {:.5f}  {}\n", name, error, limit,
             error <= limit ? "ok" : "WRONG");
}
// Of a result that was computed with a wrong scale.
void PrintTwin(const std::string& name, double error, double limit) {
  fmt::print("  {:<46}{:>10.5f}    limit {:.5f}  {}\n", name, error, limit,
             error > limit ? "seen, as it must be" : "NOT SEEN: the check shows nothing");
}

class ShapeBench {
 public:
  ShapeBench(OperationTimer* timer, double copy_bandwidth, const AttentionShape& shape,
             AttentionOperands operands)
      : timer_(timer),
        context_(timer->context()),
        copy_(copy_bandwidth),
        shape_(shape),
        operands_(std::move(operands)) {}

  void Run() {
    Bf16();
    if (shape_.sequence == kVariantsSequence) Variants();
    Report("fp8 forward", Forward());
    double deterministic = 0, any = 0;
    if (forward_graph_ != nullptr) {
      Report("fp8 backward, deterministic", Backward(true, &deterministic));
      Report("fp8 backward", Backward(false, &any));
    }
    Casts();
    Summarize(deterministic, any);
  }

 private:
  double forward_flops() const {  // two products of the visible half
    const double s = static_cast<double>(shape_.sequence);
    return 4 * static_cast<double>(shape_.batch * shape_.q_width()) * s * (s + 1) / 2;
  }
  double backward_flops() const { return 2.5 * forward_flops(); }  // five

  void Timed(const std::string& name, const OperationTimer::Call& call, double flops,
             double* seconds) {
    const StatusOr<double> took = timer_->Seconds(call, operands_.rotations());
    Report(name, took.status());
    if (!took.ok()) return;
    *seconds = *took;
    PrintTime(name, *seconds, flops);
  }

  void Bf16() {
    Timed(
        "bf16 forward", [this](int i) { return operands_.Bf16Forward(i); }, forward_flops(),
        &bf16_forward_);
    Timed(
        "bf16 backward, deterministic", [this](int i) { return operands_.Bf16Backward(i); },
        backward_flops(), &bf16_backward_);
    Report("bf16 backward, any plan", AnyBf16Backward());
  }

  // Beside an FP8 backward pass that need not repeat its bits.
  Status AnyBf16Backward() {
    Fp8SdpaProblem problem = Problem(true);
    problem.bf16 = true;
    problem.packed = true;
    TE_ASSIGN_OR_RETURN(const auto graph, Fp8Sdpa::Build(context_, problem, kMaxPlans));
    TE_ASSIGN_OR_RETURN(const Choice choice, Fastest(graph.get(), [this](int i) {
                          return operands_.Bf16BackwardPointers(i);
                        }));
    any_bf16_backward_ = choice.seconds;
    PrintTime("bf16 backward, any plan", choice.seconds, backward_flops());
    return OkStatus();
  }

  // ----- Graphs and plans

  Fp8SdpaProblem Problem(bool backward) const {
    return {.batch = shape_.batch,
            .sequence = shape_.sequence,
            .heads = shape_.heads,
            .groups = shape_.groups,
            .head_dim = AttentionShape::kHeadDim,
            .backward = backward};
  }

  struct Choice {
    size_t plan = 0;
    double seconds = 0;
  };
  // Times all plans that run, in turns, and lists them.
  StatusOr<Choice> Fastest(Fp8Sdpa* graph, const std::function<SdpaPointers(int)>& pointers) {
    std::vector<size_t> running;
    std::vector<OperationTimer::Call> calls;
    Status status;
    for (size_t plan = 0; plan < graph->plans().size(); ++plan) {
      const OperationTimer::Call call = [=](int i) {
        SdpaPointers p = pointers(i);
        return graph->Run(plan, p);
      };
      Status ran = call(0);
      if (ran.ok()) ran = context_->Synchronize();
      if (!ran.ok()) {
        fmt::print("      plan {}: {}\n", graph->plans()[plan].config, ran.message());
        status = std::move(ran);
        continue;
      }
      running.push_back(plan);
      calls.push_back(call);
    }
    if (running.empty()) return status;
    TE_ASSIGN_OR_RETURN(const std::vector<double> seconds,
                        timer_->Seconds(calls, operands_.rotations()));
    const size_t best =
        static_cast<size_t>(std::min_element(seconds.begin(), seconds.end()) - seconds.begin());
    for (size_t i = 0; i < running.size(); ++i) {
      const Fp8SdpaPlan& plan = graph->plans()[running[i]];
      fmt::print("      {:>10.1f} us  plan {}, workspace {} bytes{}{}\n", seconds[i] * 1e6,
                 plan.config, plan.workspace_bytes,
                 plan.marked ? ", marked as nondeterministic" : "", i == best ? ", fastest" : "");
    }
    return Choice{running[best], seconds[best]};
  }

  // Which graphs cuDNN takes at all.
  void Variants() {
    constexpr QuantFormat kE5M2 = QuantFormat::kFloat8E5M2, kE4M3 = QuantFormat::kFloat8E4M3;
    constexpr struct {
      const char* name;
      bool backward, deterministic, packed, bf16_results;
      QuantFormat gradients;
    } kVariants[] = {
        {"forward", false, false, false, false, kE5M2},
        {"forward, packed qkv", false, false, true, false, kE5M2},
        {"forward, out in bf16", false, false, false, true, kE5M2},
        {"backward, deterministic", true, true, false, false, kE5M2},
        {"backward", true, false, false, false, kE5M2},
        {"backward, packed qkv and dqkv", true, false, true, false, kE5M2},
        {"backward, gradients in e4m3", true, false, false, false, kE4M3},
        {"backward, dqkv in bf16", true, false, false, true, kE5M2},
    };
    fmt::print("  fp8 graphs that cuDNN takes\n");
    for (const auto& variant : kVariants) {
      Fp8SdpaProblem problem = Problem(variant.backward);
      problem.deterministic = variant.deterministic;
      problem.packed = variant.packed;
      problem.bf16_results = variant.bf16_results;
      problem.gradients = variant.gradients;
      const StatusOr<std::unique_ptr<Fp8Sdpa>> graph = Fp8Sdpa::Build(context_, problem, 1);
      if (!graph.ok()) {
        fmt::print("    {:<36}no: {}\n", variant.name, graph.status().message());
        continue;
      }
      const Fp8SdpaPlan& plan = (*graph)->plans().front();
      fmt::print("    {:<36}yes: plan {}, workspace {} bytes{}\n", variant.name, plan.config,
                 plan.workspace_bytes, plan.marked ? ", all plans marked as nondeterministic" : "");
    }
    std::fflush(stdout);
  }

  Status SetToOne(std::initializer_list<int64_t> scalars) {
    for (const int64_t scalar : scalars) operands_.Value(scalar) = 1;
    return operands_.Upload();
  }

  // Runs the same inputs again and compares all codes.
  Status Repeat(const std::string& name, Fp8Sdpa* graph, size_t plan, bool backward) {
    const AttentionOperands::Buffers& b = operands_.at(0);
    std::vector<const Tensor*> results = {&b.out8};
    if (backward) results = {&b.dq8, &b.dk8, &b.dv8};
    std::vector<std::vector<uint8_t>> first;
    std::vector<size_t> different(results.size(), 0);
    for (int run = 0; run < kRepeats; ++run) {
      SdpaPointers pointers = operands_.Fp8Pointers(0, backward);
      TE_RETURN_IF_ERROR(graph->Run(plan, pointers));
      for (size_t r = 0; r < results.size(); ++r) {
        std::vector<uint8_t> codes(results[r]->view().bytes());
        TE_RETURN_IF_ERROR(context_->CopyToHost(results[r]->view(), codes.data()));
        if (run == 0) {
          first.push_back(std::move(codes));
          continue;
        }
        size_t count = 0;
        for (size_t i = 0; i < codes.size(); ++i) count += codes[i] != first[r][i];
        different[r] = std::max(different[r], count);
      }
    }
    std::string text;
    for (size_t r = 0; r < results.size(); ++r)
      text += fmt::format(" {} of {}", different[r], first[r].size());
    fmt::print("  {}: codes that differ in {} runs:{}\n", name, kRepeats, text);
    return OkStatus();
  }

  // ----- FP8 forward

  // Leaves outputs and statistics in all rotations.
  Status Forward() {
    TE_ASSIGN_OR_RETURN(auto graph, Fp8Sdpa::Build(context_, Problem(false), kMaxPlans));
    TE_RETURN_IF_ERROR(SetToOne({kScaleS, kDescaleS, kScaleO, kDescaleO}));
    TE_ASSIGN_OR_RETURN(const Choice choice, Fastest(graph.get(), [this](int i) {
                          return operands_.Fp8Pointers(i, false);
                        }));
    forward_plan_ = choice.plan;
    fp8_forward_ = choice.seconds;
    PrintTime("fp8 forward", fp8_forward_, forward_flops());
    TE_ASSIGN_OR_RETURN(const bool accumulates,
                        operands_.Calibrate(graph.get(), forward_plan_, false));
    fmt::print("      amax: S {} O {}; {}\n", operands_.Value(kAmaxS), operands_.Value(kAmaxO),
               accumulates ? "accumulated" : "overwritten");
    for (int i = 0; i < operands_.rotations(); ++i) {
      SdpaPointers pointers = operands_.Fp8Pointers(i, false);
      TE_RETURN_IF_ERROR(graph->Run(forward_plan_, pointers));
    }
    TE_RETURN_IF_ERROR(context_->Synchronize());
    forward_graph_ = std::move(graph);
    TE_ASSIGN_OR_RETURN(original_, operands_.Reference(false));
    TE_ASSIGN_OR_RETURN(quantized_, operands_.Reference(true));
    TE_RETURN_IF_ERROR(CheckForward());
    return Repeat("fp8 forward", forward_graph_.get(), forward_plan_, false);
  }

  Status CheckForward() {
    const AttentionOperands::Buffers& b = operands_.at(0);
    const double limit = Limit(kForwardFormat, kForwardFormat);  // of P and of O
    const auto values = [&] {
      return operands_.HostValues(b.out8, operands_.Value(kScaleO), kForwardFormat);
    };
    TE_ASSIGN_OR_RETURN(const auto out, values());
    TE_ASSIGN_OR_RETURN(const auto expected, operands_.HostValues(quantized_.out));
    TE_ASSIGN_OR_RETURN(const auto original, operands_.HostValues(original_.out));
    TE_ASSIGN_OR_RETURN(const auto statistics, operands_.HostValues(b.statistics));
    TE_ASSIGN_OR_RETURN(const auto lse, operands_.HostValues(quantized_.lse));
    PrintError("out: error against bf16 of the same codes", RelativeError(out, expected), limit);
    PrintValue("out: error against bf16 of the inputs", RelativeError(out, original));
    // q and k of the reference were rounded to BF16 once more.
    PrintError("log-sum-exp: error", RelativeError(statistics, lse), 0x1p-8);
    PrintValue("amax of O / that of the bf16 result",
               static_cast<double>(operands_.Value(kAmaxO)) / LargestOf(expected));
    TE_ASSIGN_OR_RETURN(const Tensor wrong, operands_.DisturbedScaleInv(b.v8));
    SdpaPointers pointers = operands_.Fp8Pointers(0, false);
    pointers[kDescaleV] = wrong.view().data();
    TE_RETURN_IF_ERROR(forward_graph_->Run(forward_plan_, pointers));
    TE_ASSIGN_OR_RETURN(const auto twin, values());
    PrintTwin("out with a wrong scale of v", RelativeError(twin, expected), limit);
    pointers = operands_.Fp8Pointers(0, false);
    return forward_graph_->Run(forward_plan_, pointers);
  }

  // ----- FP8 backward

  // *seconds: of the fastest plan; stays 0 when there is none.
  Status Backward(bool deterministic, double* seconds) {
    const char* name = deterministic ? "fp8 backward, deterministic" : "fp8 backward";
    Fp8SdpaProblem problem = Problem(true);
    problem.deterministic = deterministic;
    TE_ASSIGN_OR_RETURN(const auto graph, Fp8Sdpa::Build(context_, problem, kMaxPlans));
    TE_RETURN_IF_ERROR(SetToOne({kScaleDp, kDescaleDp, kScaleDq, kScaleDk, kScaleDv}));
    TE_ASSIGN_OR_RETURN(const Choice choice, Fastest(graph.get(), [this](int i) {
                          return operands_.Fp8Pointers(i, true);
                        }));
    *seconds = choice.seconds;
    PrintTime(name, choice.seconds, backward_flops());
    TE_ASSIGN_OR_RETURN(const bool accumulates,
                        operands_.Calibrate(graph.get(), choice.plan, true));
    fmt::print("      amax: dP {} dQ {} dK {} dV {}; {}\n", operands_.Value(kAmaxDp),
               operands_.Value(kAmaxDq), operands_.Value(kAmaxDk), operands_.Value(kAmaxDv),
               accumulates ? "accumulated" : "overwritten");
    TE_RETURN_IF_ERROR(CheckBackward(graph.get(), choice.plan));
    return Repeat(name, graph.get(), choice.plan, true);
  }

  Status CheckBackward(Fp8Sdpa* graph, size_t plan) {
    if (!quantized_.out.defined()) return FailedPrecondition("no bf16 result to compare with");
    const AttentionOperands::Buffers& b = operands_.at(0);
    TE_ASSIGN_OR_RETURN(const Tensor wrong, operands_.DisturbedScaleInv(b.dout8));
    const double of_dp = Limit(kGradientFormat, kGradientFormat);
    const struct {
      const char* name;
      const Tensor& codes;
      int64_t scale, amax;
      const Tensor &expected, &original;
      double limit;
    } gradients[] = {
        {"dq", b.dq8, kScaleDq, kAmaxDq, quantized_.dq, original_.dq, of_dp},
        {"dk", b.dk8, kScaleDk, kAmaxDk, quantized_.dk, original_.dk, of_dp},
        {"dv", b.dv8, kScaleDv, kAmaxDv, quantized_.dv, original_.dv,
         Limit(kForwardFormat, kGradientFormat)},  // of P and of dV
    };
    for (const auto& g : gradients) {
      const std::string name = g.name;
      const auto values = [&] {
        return operands_.HostValues(g.codes, operands_.Value(g.scale), kGradientFormat);
      };
      SdpaPointers pointers = operands_.Fp8Pointers(0, true);
      TE_RETURN_IF_ERROR(graph->Run(plan, pointers));
      TE_ASSIGN_OR_RETURN(const auto gradient, values());
      TE_ASSIGN_OR_RETURN(const auto expected, operands_.HostValues(g.expected));
      TE_ASSIGN_OR_RETURN(const auto original, operands_.HostValues(g.original));
      PrintError(name + ": error against bf16 of the same codes", RelativeError(gradient, expected),
                 g.limit);
      PrintValue(name + ": error against bf16 of the inputs", RelativeError(gradient, original));
      PrintValue("amax of " + name + " / that of the bf16 result",
                 static_cast<double>(operands_.Value(g.amax)) / LargestOf(expected));
      pointers[kDescaleDo] = wrong.view().data();
      TE_RETURN_IF_ERROR(graph->Run(plan, pointers));
      TE_ASSIGN_OR_RETURN(const auto twin, values());
      PrintTwin(name + " with a wrong scale of dout", RelativeError(twin, expected), g.limit);
    }
    return OkStatus();
  }

  // ----- Casts, with scales known beforehand; they overwrite the codes

  void Casts() {
    Report("scales", SetToOne({kScaleO}));
    const auto quantize = [this](const TensorView& x, QuantSpec out) {
      out.scaling = QuantScaling::kTensor;
      out.scale = operands_.At(kScaleO);
      return context_->kernels().quantize(context_->exec(), {.x = x, .out = out});
    };
    const auto dequantize = [this](const Tensor& codes, const TensorView& y) {
      QuantSpec x;
      x.format = kGradientFormat;
      x.scale_inv = operands_.At(kScaleO);
      x.rowwise_data = codes.view();
      return context_->kernels().dequantize(context_->exec(),
                                            {.x = x, .orientation = Orientation::kRowwise, .y = y});
    };
    const auto out = [&](int i) {
      const AttentionOperands::Buffers& b = operands_.at(i);
      QuantSpec both = b.q8.spec();
      both.rowwise_data = b.out8.view();
      both.columnwise_data = b.dq8.view().Reshape({shape_.q_width(), shape_.tokens()});
      return quantize(b.out.view(), both);
    };
    const auto qkv = [&](int i) -> Status {
      const AttentionOperands::Buffers& b = operands_.at(i);
      const AttentionParts in = operands_.Rows(b.qkv);
      TE_RETURN_IF_ERROR(quantize(in.q, b.q8.spec()));
      TE_RETURN_IF_ERROR(quantize(in.k, b.k8.spec()));
      return quantize(in.v, b.v8.spec());
    };
    const auto dout = [&](int i) {
      const AttentionOperands::Buffers& b = operands_.at(i);
      return quantize(b.dout.view(), b.dout8.spec());
    };
    const auto dqkv = [&](int i) -> Status {
      const AttentionOperands::Buffers& b = operands_.at(i);
      const AttentionParts gradients = operands_.Rows(b.dqkv);
      TE_RETURN_IF_ERROR(dequantize(b.dq8, gradients.q));
      TE_RETURN_IF_ERROR(dequantize(b.dk8, gradients.k));
      return dequantize(b.dv8, gradients.v);
    };
    Timed("bf16: out to fp8 and its transpose", out, 0, &cast_out_);
    Timed("fp8: q, k, v to fp8", qkv, 0, &cast_qkv_);
    Timed("fp8: dout to fp8", dout, 0, &cast_dout_);
    Timed("fp8: dq, dk, dv to bf16", dqkv, 0, &cast_dqkv_);
    // The output projection's wgrad wants the codes that FP8 attention writes transposed: a byte
    // in, one out. No kernel of ours does that yet.
    transpose_out_ = 2 * static_cast<double>(shape_.tokens() * shape_.q_width()) / copy_;
    PrintTime("fp8: out's codes transposed, at a copy's speed", transpose_out_, 0);
  }

  void Summarize(double deterministic, double any) {
    if (bf16_forward_ == 0 || bf16_backward_ == 0 || cast_out_ == 0 || cast_qkv_ == 0 ||
        cast_dout_ == 0 || cast_dqkv_ == 0) {
      fmt::print("  sum: none, for want of the rows above\n");
      return;
    }
    const double bf16 = bf16_forward_ + bf16_backward_ + cast_out_;
    fmt::print("  sum, bf16: {:.1f} us\n", bf16 * 1e6);
    if (any_bf16_backward_ > 0) {
      fmt::print("  sum, bf16 with any backward: {:.1f} us\n",
                 (bf16_forward_ + any_bf16_backward_ + cast_out_) * 1e6);
    }
    const double casts = cast_qkv_ + cast_dout_ + cast_dqkv_ + transpose_out_;
    const auto line = [&](const char* name, double backward) {
      if (fp8_forward_ == 0 || backward == 0) {
        fmt::print("  sum, fp8 with {}: none\n", name);
        return;
      }
      const double most = fp8_forward_ + backward + casts;
      const double least = fp8_forward_ + backward + transpose_out_;
      fmt::print(
          "  sum, fp8 with {}: {:.1f} us, {:.2f}x as fast as bf16; without casts but out's "
          "transpose {:.1f} us, {:.2f}x\n",
          name, most * 1e6, bf16 / most, least * 1e6, bf16 / least);
    };
    line("the deterministic backward", deterministic);
    line("any backward", any);
    std::fflush(stdout);
  }

  OperationTimer* timer_;
  Context* context_;
  double copy_;  // bytes a second
  AttentionShape shape_;
  AttentionOperands operands_;
  std::unique_ptr<Fp8Sdpa> forward_graph_;  // null: cuDNN has none
  size_t forward_plan_ = 0;
  AttentionResults original_, quantized_;
  // Seconds; 0: not had.
  double bf16_forward_ = 0, bf16_backward_ = 0, any_bf16_backward_ = 0, fp8_forward_ = 0;
  double cast_out_ = 0, cast_qkv_ = 0, cast_dout_ = 0, cast_dqkv_ = 0, transpose_out_ = 0;
};

Status RunShape(OperationTimer* timer, double copy_bandwidth, const AttentionShape& shape) {
  fmt::print("\n{} (batch x sequence, heads / key-value heads of {}), causal\n", shape.ToString(),
             AttentionShape::kHeadDim);
  TE_ASSIGN_OR_RETURN(AttentionOperands operands, AttentionOperands::Make(timer, shape));
  ShapeBench(timer, copy_bandwidth, shape, std::move(operands)).Run();
  return OkStatus();
}

Status RunBench(const std::string& filter, bool hot) {
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Create({.device = "cuda"}));
  TE_ASSIGN_OR_RETURN(const auto machine, DescribeMachine(context->device()));
  for (const auto& [name, value] : machine) fmt::print("{}: {}\n", name, value);
  TE_ASSIGN_OR_RETURN(OperationTimer timer, OperationTimer::Make(context.get()));
  TE_ASSIGN_OR_RETURN(const double copy, timer.CopyBandwidth());
  fmt::print("copy of 4 GiB: {:.0f} GB/s, read and written\n", copy * 1e-9);
  if (hot) TE_RETURN_IF_ERROR(timer.StayHot());
  for (const AttentionShape& shape : kShapes) {
    if (shape.ToString().find(filter) == std::string::npos) continue;
    Report(shape.ToString(), RunShape(&timer, copy, shape));
  }
  return OkStatus();
}

}  // namespace
}  // namespace te::bench

int main(int argc, char** argv) {
  std::string filter;
  bool hot = false;
  CLI::App app("Times cuDNN's FP8 attention beside BF16's, and checks its results.",
               "fp8_attention");
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
