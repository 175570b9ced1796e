#include <algorithm>

#include "bench/cublaslt_candidates.h"
#include "bench/operations_cuda.h"
#include "fmt/format.h"

namespace te::bench {

Status OperationsBench::Gemms(const BenchModelShape& model, int64_t tokens) {
  const struct {
    const char* name;
    int64_t out_features, in_features;
  } layers[] = {{"qkv", (model.heads + 2 * model.groups) * model.head_dim, model.hidden},
                {"proj", model.hidden, model.heads * model.head_dim},
                {"gate+up", 2 * model.ffn, model.hidden},
                {"down", model.hidden, model.ffn},
                {"lm_head", model.vocab, model.hidden}};
  for (const auto& layer : layers) {
    for (const GemmKind kind : {GemmKind::kFprop, GemmKind::kDgrad, GemmKind::kWgrad}) {
      TE_RETURN_IF_ERROR(
          Gemm(model, layer.name, kind, tokens, layer.out_features, layer.in_features));
      TE_RETURN_IF_ERROR(
          Fp8Gemms(model, layer.name, kind, tokens, layer.out_features, layer.in_features));
    }
  }
  return OkStatus();
}

Status OperationsBench::Gemm(const BenchModelShape& model, const char* layer, GemmKind kind,
                             int64_t tokens, int64_t out_features, int64_t in_features) {
  constexpr const char* kKinds[] = {"fprop", "dgrad", "wgrad"};
  const std::string name = fmt::format("gemm {}", kKinds[static_cast<int>(kind)]);
  const std::string shape = fmt::format("{} {} {} tokens", model.name, layer, tokens);
  if (!Wanted(name, shape)) return OkStatus();
  const Shape x = {tokens, in_features}, w = {out_features, in_features},
              y = {tokens, out_features};
  const Shape& a = kind == GemmKind::kFprop ? x : y;
  const Shape& b = kind == GemmKind::kWgrad ? x : w;
  const Shape& d = kind == GemmKind::kFprop ? y : kind == GemmKind::kDgrad ? x : w;
  const int count = OperationTimer::Rotations(2 * (a.elements() + b.elements() + d.elements()));
  TE_ASSIGN_OR_RETURN(const Buffers as, Random(a, count));
  TE_ASSIGN_OR_RETURN(const Buffers bs, Random(b, count));
  TE_ASSIGN_OR_RETURN(const Buffers ds, Random(d, count));
  const auto args = [&](int i) {
    GemmArgs out;
    out.kind = kind;
    out.a = View(as, i);
    out.b = View(bs, i);
    out.d = View(ds, i);
    return out;
  };
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<LtCandidates> candidates,
                      LtCandidates::Make(timer_, args(0)));
  constexpr int kKept = 6;
  TE_ASSIGN_OR_RETURN(const int offered, candidates->Search(kKept));
  std::vector<OperationTimer::Call> calls = {[&](int i) { return run().gemm(exec(), args(i)); }};
  for (int k = 0; k < candidates->kept(); ++k)
    calls.emplace_back([&, k](int i) { return candidates->Run(k, args(i)); });
  TE_ASSIGN_OR_RETURN(const std::vector<double> seconds, timer_->Seconds(calls, count));
  const auto ratio = [](const std::vector<double>& times) {
    return *std::min_element(times.begin() + 1, times.end()) / times[0];
  };
  TE_ASSIGN_OR_RETURN(const std::vector<double> sustained, timer_->SustainedSeconds(calls, count));
  const double flops = 2.0 * static_cast<double>(tokens) * static_cast<double>(out_features) *
                       static_cast<double>(in_features);
  const double rate = flops / seconds[0];
  Add({.operation = name,
       .shape = fmt::format("{} of {}", shape, offered),
       .seconds = seconds[0],
       .rate = rate,
       .ceiling = rate / ratio(seconds),
       .flops = true,
       .ratio_at_the_limit = ratio(sustained)});
  return OkStatus();
}

// With one scale a tensor (dy in E5M2, as hybrid has it), fast and split, and with float32 blocks
// (weights in squares).
Status OperationsBench::Fp8Gemms(const BenchModelShape& model, const char* layer, GemmKind kind,
                                 int64_t tokens, int64_t out_features, int64_t in_features) {
  constexpr const char* kKinds[] = {"fprop", "dgrad", "wgrad"};
  const struct {
    const char* name;
    bool blocks, split;
  } modes[] = {{"tensor fast", false, false}, {"tensor split", false, true}, {"block", true, true}};
  const std::string shape = fmt::format("{} {} {} tokens", model.name, layer, tokens);
  const Shape x = {tokens, in_features}, w = {out_features, in_features},
              y = {tokens, out_features};
  const Shape& a = kind == GemmKind::kFprop ? x : y;
  const Shape& b = kind == GemmKind::kWgrad ? x : w;
  const Shape& d = kind == GemmKind::kFprop ? y : kind == GemmKind::kDgrad ? x : w;
  const auto a_rows = kind == GemmKind::kWgrad ? Orientation::kColumnwise : Orientation::kRowwise;
  const auto b_rows = kind == GemmKind::kFprop ? Orientation::kRowwise : Orientation::kColumnwise;
  for (const auto& mode : modes) {
    const std::string name =
        fmt::format("gemm fp8 {} {}", kKinds[static_cast<int>(kind)], mode.name);
    if (!Wanted(name, shape)) continue;
    const QuantScaling row = QuantScaling::kBlock1x128, square = QuantScaling::kBlock128x128;
    const QuantScaling a_scaling = mode.blocks ? row : QuantScaling::kTensorCurrent;
    const QuantScaling b_scaling = !mode.blocks               ? QuantScaling::kTensorCurrent
                                   : kind == GemmKind::kWgrad ? row
                                                              : square;
    const auto a_format = mode.blocks || kind == GemmKind::kFprop ? QuantFormat::kFloat8E4M3
                                                                  : QuantFormat::kFloat8E5M2;
    const int count = OperationTimer::Rotations(a.elements() + b.elements() + 2 * d.elements());
    TE_ASSIGN_OR_RETURN(const auto as, Quantized(a, count, a_format, a_scaling, a_rows));
    TE_ASSIGN_OR_RETURN(const auto bs,
                        Quantized(b, count, QuantFormat::kFloat8E4M3, b_scaling, b_rows));
    TE_ASSIGN_OR_RETURN(const Buffers ds, Random(d, count));
    const OperationTimer::Call call = [&](int i) {
      GemmArgs args;
      args.kind = kind;
      args.a = as[static_cast<size_t>(i)].operand();
      args.b = bs[static_cast<size_t>(i)].operand();
      args.d = View(ds, i);
      args.split_accumulator = mode.split;
      return run().gemm(exec(), args);
    };
    TE_ASSIGN_OR_RETURN(const double seconds, timer_->Seconds(call, count));
    const double flops = 2.0 * static_cast<double>(tokens) * static_cast<double>(out_features) *
                         static_cast<double>(in_features);
    Add({name, shape, seconds, flops / seconds, 0, true});
  }
  return OkStatus();
}

StatusOr<std::vector<QuantizedTensor>> OperationsBench::Quantized(const Shape& shape, int count,
                                                                  QuantFormat format,
                                                                  QuantScaling scaling,
                                                                  Orientation orientation) {
  std::vector<QuantizedTensor> out;
  for (int i = 0; i < count; ++i) {
    TE_ASSIGN_OR_RETURN(const Buffers x, Random(shape, 1));
    TE_ASSIGN_OR_RETURN(
        QuantizedTensor tensor,
        QuantizedTensor::Make(timer_->context(), View(x, 0), format, scaling, orientation));
    // x goes before the next one comes.
    TE_RETURN_IF_ERROR(timer_->context()->Synchronize());
    out.push_back(std::move(tensor));
  }
  return out;
}

}  // namespace te::bench
