// Every operation of a Llama step on a GPU against its ceiling, measured in the same run: memory
// operations against a copy's bandwidth, matrix products against the fastest of cuBLASLt's
// candidates, attention against the fastest deterministic plan of cuDNN's.
//
//   with_cuda bin/operations_cuda [--filter TEXT] [--hot] [--attention-knobs] [--json FILE]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "bench/cublaslt_candidates.h"
#include "bench/operation_timer.h"
#include "bench/quantized_tensor.h"
#include "fmt/format.h"
#include "models/json/json.h"
#include "te_kernels/attention/sdpa_graph.h"
#include "te_kernels/cuda/cuda_state.h"

namespace te::bench {
namespace {

constexpr DType kBf16 = DType::kBFloat16;

struct Options {
  std::string filter;
  std::string json;
  bool hot = false;
  bool attention_knobs = false;
  std::vector<int64_t> tokens = {2048, 4096};
};

struct Model {
  const char* name;
  int64_t hidden, ffn, heads, groups, head_dim, vocab;
};
constexpr Model kModels[] = {{"7B", 4096, 11008, 32, 32, 128, 32000},
                             {"8B", 4096, 14336, 32, 8, 128, 128256}};

struct Row {
  std::string operation, shape;
  double seconds = 0;
  double rate = 0;     // bytes or FLOP a second
  double ceiling = 0;  // likewise; 0: none
  bool flops = false;
};

class Bench {
 public:
  Bench(OperationTimer* timer, const Options& options) : timer_(timer), options_(options) {}

  Status Run() {
    TE_ASSIGN_OR_RETURN(copy_, timer_->CopyBandwidth());
    fmt::print(
        "copy of 4 GiB: {:.0f} GB/s, read and written\n\n{:<26}{:<26}{:>10}{:>12}{:>12}{:>9}\n",
        copy_ * 1e-9, "operation", "shape", "us", "rate", "ceiling", "ratio");
    for (const Model& model : kModels) {
      for (const int64_t tokens : options_.tokens) {
        TE_RETURN_IF_ERROR(Norms(model, tokens));
        TE_RETURN_IF_ERROR(SwiGlu(model, tokens));
        TE_RETURN_IF_ERROR(Rope(model, tokens));
        TE_RETURN_IF_ERROR(Losses(model, tokens));
        TE_RETURN_IF_ERROR(Embeddings(model, tokens));
        TE_RETURN_IF_ERROR(Elementwise(model, tokens));
      }
      TE_RETURN_IF_ERROR(Optimizer(model));
      for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
        TE_RETURN_IF_ERROR(Float8Optimizer(model, rounding, false));
        TE_RETURN_IF_ERROR(Float8Optimizer(model, rounding, true));
      }
    }
    for (const Model& model : kModels) {
      for (const int64_t tokens : options_.tokens) {
        for (const int64_t sequence : {int64_t{256}, tokens})
          TE_RETURN_IF_ERROR(Attention(model, tokens, sequence));
        TE_RETURN_IF_ERROR(Gemms(model, tokens));
      }
    }
    return OkStatus();
  }

  const std::vector<Row>& rows() const { return rows_; }

 private:
  const KernelTable& run() const { return timer_->context()->kernels(); }
  const Exec& exec() const { return timer_->context()->exec(); }

  bool Wanted(const std::string& operation, const std::string& shape) const {
    return (operation + " " + shape).find(options_.filter) != std::string::npos;
  }

  void Add(Row row) {
    const double unit = row.flops ? 1e-12 : 1e-9;
    fmt::print("{:<26}{:<26}{:>10.1f}{:>7.{}f} {}", row.operation, row.shape, row.seconds * 1e6,
               row.rate * unit, row.flops ? 1 : 0, row.flops ? "TF/s" : "GB/s");
    if (row.ceiling > 0) {
      fmt::print("{:>12.{}f}{:>8.1f}%", row.ceiling * unit, row.flops ? 1 : 0,
                 100 * row.rate / row.ceiling);
    }
    fmt::print("\n");
    std::fflush(stdout);
    rows_.push_back(std::move(row));
  }

  // `bytes`: what the operation must read and write once.
  Status Memory(const char* operation, const Model& model, int64_t tokens, int64_t bytes,
                const std::function<StatusOr<OperationTimer::Call>(int rotations)>& prepare) {
    const std::string shape = fmt::format("{} {} tokens", model.name, tokens);
    if (!Wanted(operation, shape)) return OkStatus();
    const int rotations = OperationTimer::Rotations(bytes);
    TE_ASSIGN_OR_RETURN(const OperationTimer::Call call, prepare(rotations));
    TE_ASSIGN_OR_RETURN(const double seconds, timer_->Seconds(call, rotations));
    Add({operation, shape, seconds, static_cast<double>(bytes) / seconds, copy_, false});
    return OkStatus();
  }

  // Tensors that live as long as the call that holds them.
  using Buffers = std::shared_ptr<std::vector<Tensor>>;
  StatusOr<Buffers> Random(const Shape& shape, int count, DType dtype = kBf16) {
    TE_ASSIGN_OR_RETURN(std::vector<Tensor> tensors, timer_->Random(dtype, shape, count));
    return std::make_shared<std::vector<Tensor>>(std::move(tensors));
  }
  static TensorView View(const Buffers& buffers, int i) {
    return (*buffers)[static_cast<size_t>(i)].view();
  }

  Status Norms(const Model& model, int64_t tokens) {
    const int64_t h = model.hidden;
    TE_RETURN_IF_ERROR(Memory(
        "rms_norm_forward", model, tokens, 4 * tokens * h,
        [&, h, tokens](int count) -> StatusOr<OperationTimer::Call> {
          TE_ASSIGN_OR_RETURN(const Buffers x, Random({tokens, h}, count));
          TE_ASSIGN_OR_RETURN(const Buffers y, Random({tokens, h}, count));
          TE_ASSIGN_OR_RETURN(const Buffers gamma, Random({h}, 1));
          TE_ASSIGN_OR_RETURN(const Buffers rstd, Random({tokens}, 1, DType::kFloat32));
          return OperationTimer::Call([=, this](int i) {
            return run().rms_norm_forward(
                exec(),
                {.x = View(x, i), .gamma = View(gamma, 0), .y = View(y, i), .rstd = View(rstd, 0)});
          });
        }));
    // dy, x and the residual's gradient in, dx out.
    return Memory("rms_norm_backward", model, tokens, 8 * tokens * h,
                  [&, h, tokens](int count) -> StatusOr<OperationTimer::Call> {
                    TE_ASSIGN_OR_RETURN(const Buffers x, Random({tokens, h}, count));
                    TE_ASSIGN_OR_RETURN(const Buffers dy, Random({tokens, h}, count));
                    TE_ASSIGN_OR_RETURN(const Buffers add, Random({tokens, h}, count));
                    TE_ASSIGN_OR_RETURN(const Buffers dx, Random({tokens, h}, count));
                    TE_ASSIGN_OR_RETURN(const Buffers gamma, Random({h}, 2));
                    TE_ASSIGN_OR_RETURN(const Buffers rstd, Random({tokens}, 1, DType::kFloat32));
                    return OperationTimer::Call([=, this](int i) {
                      return run().rms_norm_backward(exec(), {.dy = View(dy, i),
                                                              .x = View(x, i),
                                                              .gamma = View(gamma, 0),
                                                              .rstd = View(rstd, 0),
                                                              .add = View(add, i),
                                                              .dx = View(dx, i),
                                                              .dgamma = View(gamma, 1)});
                    });
                  });
  }

  Status SwiGlu(const Model& model, int64_t tokens) {
    const int64_t f = model.ffn;
    TE_RETURN_IF_ERROR(
        Memory("swiglu_forward", model, tokens, 6 * tokens * f,
               [&, f, tokens](int count) -> StatusOr<OperationTimer::Call> {
                 TE_ASSIGN_OR_RETURN(const Buffers x, Random({tokens, 2 * f}, count));
                 TE_ASSIGN_OR_RETURN(const Buffers y, Random({tokens, f}, count));
                 return OperationTimer::Call([=, this](int i) {
                   return run().activation_forward(exec(), {.x = View(x, i), .y = View(y, i)});
                 });
               }));
    return Memory("swiglu_backward", model, tokens, 10 * tokens * f,
                  [&, f, tokens](int count) -> StatusOr<OperationTimer::Call> {
                    TE_ASSIGN_OR_RETURN(const Buffers x, Random({tokens, 2 * f}, count));
                    TE_ASSIGN_OR_RETURN(const Buffers dx, Random({tokens, 2 * f}, count));
                    TE_ASSIGN_OR_RETURN(const Buffers dy, Random({tokens, f}, count));
                    return OperationTimer::Call([=, this](int i) {
                      return run().activation_backward(
                          exec(), {.x = View(x, i), .dy = View(dy, i), .dx = View(dx, i)});
                    });
                  });
  }

  // In place, on the query and key heads of a packed QKV buffer, as the attention layer does.
  Status Rope(const Model& model, int64_t tokens) {
    const int64_t d = model.head_dim, rotated = model.heads + model.groups;
    const int64_t all = model.heads + 2 * model.groups;
    for (const bool inverse : {false, true}) {
      TE_RETURN_IF_ERROR(Memory(
          inverse ? "rope_backward" : "rope_forward", model, tokens, 4 * tokens * rotated * d,
          [&, inverse](int count) -> StatusOr<OperationTimer::Call> {
            TE_ASSIGN_OR_RETURN(const Buffers qkv, Random({1, tokens, all * d}, count));
            TE_ASSIGN_OR_RETURN(const Buffers tables, Random({tokens, d / 2}, 2, DType::kFloat32));
            return OperationTimer::Call([=, this](int i) {
              const TensorView heads = View(qkv, i).Slice(2, 0, rotated * d).Split(2, rotated, d);
              return run().rope(exec(), {.x = heads,
                                         .cos = View(tables, 0),
                                         .sin = View(tables, 1),
                                         .inverse = inverse,
                                         .y = heads});
            });
          }));
    }
    return OkStatus();
  }

  // Loss and gradient in one pass, the gradient in the logits' place.
  Status Losses(const Model& model, int64_t tokens) {
    const int64_t v = model.vocab;
    return Memory("cross_entropy", model, tokens, 4 * tokens * v,
                  [&, v, tokens](int count) -> StatusOr<OperationTimer::Call> {
                    TE_ASSIGN_OR_RETURN(const Buffers logits, Random({tokens, v}, count));
                    TE_ASSIGN_OR_RETURN(const Buffers loss, Random({tokens}, 1, DType::kFloat32));
                    TE_ASSIGN_OR_RETURN(Tensor integers, timer_->Integers(tokens, v));
                    const auto labels = std::make_shared<Tensor>(std::move(integers));
                    return OperationTimer::Call([=, this](int i) {
                      return run().cross_entropy(exec(), {.logits = View(logits, i),
                                                          .labels = labels->view(),
                                                          .loss = View(loss, 0),
                                                          .dlogits = View(logits, i)});
                    });
                  });
  }

  Status Embeddings(const Model& model, int64_t tokens) {
    const int64_t h = model.hidden, v = model.vocab;
    const auto ids = [&]() -> StatusOr<std::shared_ptr<Tensor>> {
      TE_ASSIGN_OR_RETURN(Tensor integers, timer_->Integers(tokens, v));
      return std::make_shared<Tensor>(std::move(integers));
    };
    TE_RETURN_IF_ERROR(Memory(
        "embedding_forward", model, tokens, 4 * tokens * h,
        [&](int count) -> StatusOr<OperationTimer::Call> {
          TE_ASSIGN_OR_RETURN(const auto which, ids());
          TE_ASSIGN_OR_RETURN(const Buffers table, Random({v, h}, 2));
          TE_ASSIGN_OR_RETURN(const Buffers out, Random({tokens, h}, count));
          return OperationTimer::Call([=, this](int i) {
            return run().embedding_forward(
                exec(), {.ids = which->view(), .table = View(table, i % 2), .out = View(out, i)});
          });
        }));
    return Memory("embedding_backward", model, tokens, 2 * (v + tokens) * h,
                  [&](int count) -> StatusOr<OperationTimer::Call> {
                    TE_ASSIGN_OR_RETURN(const auto which, ids());
                    TE_ASSIGN_OR_RETURN(const Buffers dtable, Random({v, h}, count));
                    TE_ASSIGN_OR_RETURN(const Buffers dout, Random({tokens, h}, count));
                    return OperationTimer::Call([=, this](int i) {
                      return run().embedding_backward(
                          exec(),
                          {.ids = which->view(), .dout = View(dout, i), .dtable = View(dtable, i)});
                    });
                  });
  }

  Status Elementwise(const Model& model, int64_t tokens) {
    const int64_t h = model.hidden;
    return Memory("add", model, tokens, 6 * tokens * h,
                  [&, h, tokens](int count) -> StatusOr<OperationTimer::Call> {
                    TE_ASSIGN_OR_RETURN(const Buffers a, Random({tokens, h}, count));
                    TE_ASSIGN_OR_RETURN(const Buffers b, Random({tokens, h}, count));
                    TE_ASSIGN_OR_RETURN(const Buffers out, Random({tokens, h}, count));
                    return OperationTimer::Call([=, this](int i) {
                      return run().add(exec(),
                                       {.a = View(a, i), .b = View(b, i), .out = View(out, i)});
                    });
                  });
  }

  // Of the gate and up weight; tokens play no part.
  Status Optimizer(const Model& model) {
    const int64_t elements = 2 * model.ffn * model.hidden;
    TE_RETURN_IF_ERROR(timer_->context()->WriteScalars({.step = 3, .learning_rate = 1e-5f}));
    const StepScalars* scalars = timer_->context()->scalars();
    for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
      TE_RETURN_IF_ERROR(
          Memory(rounding == Rounding::kNearest ? "adamw" : "adamw stochastic", model, 0,
                 14 * elements, [&, rounding](int count) -> StatusOr<OperationTimer::Call> {
                   TE_ASSIGN_OR_RETURN(const Buffers param, Random({elements}, count));
                   TE_ASSIGN_OR_RETURN(const Buffers grad, Random({elements}, count));
                   TE_ASSIGN_OR_RETURN(const Buffers m, Random({elements}, count));
                   TE_ASSIGN_OR_RETURN(const Buffers v, Random({elements}, count));
                   for (int i = 0; i < count; ++i)  // a variance is not negative
                     TE_RETURN_IF_ERROR(timer_->context()->Zero(View(v, i)));
                   return OperationTimer::Call([=, this](int i) {
                     return run().adamw(exec(), {.param = View(param, i),
                                                 .grad = View(grad, i),
                                                 .m = View(m, i),
                                                 .v = View(v, i),
                                                 .rounding = rounding,
                                                 .scalars = scalars});
                   });
                 }));
    }
    return Memory(
        "sum of squares", model, 0, 2 * elements, [&](int count) -> StatusOr<OperationTimer::Call> {
          TE_ASSIGN_OR_RETURN(const Buffers x, Random({elements}, count));
          return OperationTimer::Call([=, this](int i) {
            return run().sum(
                exec(), {.x = View(x, i), .out = &timer_->context()->scalars()->grad_square_sum});
          });
        });
  }

  // The same weight with E4M3 copies in both orientations, or held in nothing but them.
  Status Float8Optimizer(const Model& model, Rounding rounding, bool only_float8) {
    const Shape shape = {2 * model.ffn, model.hidden};
    const std::string operation =
        fmt::format("adamw fp8{}{}", only_float8 ? " weights" : "",
                    rounding == Rounding::kStochastic ? " stochastic" : "");
    TE_RETURN_IF_ERROR(timer_->context()->WriteScalars({.step = 3, .learning_rate = 1e-5f}));
    return Memory(
        operation.c_str(), model, 0, (only_float8 ? 13 : 16) * shape.elements(),
        [&](int count) -> StatusOr<OperationTimer::Call> {
          const Shape words = {shape.elements() / 4};
          TE_ASSIGN_OR_RETURN(const Buffers param, Random(only_float8 ? Shape{1} : shape, count));
          TE_ASSIGN_OR_RETURN(const Buffers grad, Random(shape, count));
          TE_ASSIGN_OR_RETURN(const Buffers m, Random(shape, count));
          TE_ASSIGN_OR_RETURN(const Buffers v, Random(shape, count));
          TE_ASSIGN_OR_RETURN(const Buffers rowwise, Random(words, count, DType::kFloat32));
          TE_ASSIGN_OR_RETURN(const Buffers columnwise, Random(words, count, DType::kFloat32));
          TE_ASSIGN_OR_RETURN(const Buffers scale, Random({1}, 4, DType::kFloat32));
          for (int i = 0; i < count; ++i)  // a variance is not negative
            TE_RETURN_IF_ERROR(timer_->context()->Zero(View(v, i)));
          for (int i = 1; i < 4; ++i) TE_RETURN_IF_ERROR(timer_->context()->Zero(View(scale, i)));
          return OperationTimer::Call([=, this](int i) {
            const auto number = [&](int which) { return View(scale, which).as<float>(); };
            AdamWArgs args = {.grad = View(grad, i), .m = View(m, i), .v = View(v, i)};
            if (only_float8) {
              args.previous_scale_inv = number(3);
            } else {
              args.param = View(param, i);
            }
            args.rounding = rounding;
            args.scalars = timer_->context()->scalars();
            args.quantized_param = {
                .format = QuantFormat::kFloat8E4M3,
                .scale = number(0),
                .scale_inv = number(1),
                .amax = number(2),
                .rowwise_data = TensorView(View(rowwise, i).data(), DType::kUInt8, shape),
                .columnwise_data =
                    TensorView(View(columnwise, i).data(), DType::kUInt8, {shape[1], shape[0]})};
            return run().adamw(exec(), args);
          });
        });
  }

  Status Attention(const Model& model, int64_t tokens, int64_t sequence) {
    const int64_t n = model.heads, g = model.groups, d = model.head_dim;
    const int64_t batch = tokens / sequence;
    const std::string shape = fmt::format("{} {}x{}", model.name, batch, sequence);
    if (batch < 1 || (!Wanted("attention_forward", shape) && !Wanted("attention_backward", shape)))
      return OkStatus();
    const int count = OperationTimer::Rotations(2 * tokens * (2 * n + 2 * g) * d);
    TE_ASSIGN_OR_RETURN(const Buffers qkv, Random({batch, sequence, (n + 2 * g) * d}, count));
    TE_ASSIGN_OR_RETURN(const Buffers dqkv, Random({batch, sequence, (n + 2 * g) * d}, count));
    TE_ASSIGN_OR_RETURN(const Buffers out, Random({batch, sequence, n, d}, count));
    TE_ASSIGN_OR_RETURN(const Buffers dout, Random({batch, sequence, n, d}, count));
    TE_ASSIGN_OR_RETURN(const Buffers lse, Random({batch, n, sequence}, count, DType::kFloat32));
    const auto part = [=](const Buffers& buffers, int i, int64_t begin, int64_t heads) {
      return View(buffers, i).Slice(2, begin * d, (begin + heads) * d).Split(2, heads, d);
    };
    const float scale = 0.08838834764831845f;  // 1 / sqrt(128)
    const OperationTimer::Call forward = [=, this](int i) {
      return run().attention_forward(exec(), {.q = part(qkv, i, 0, n),
                                              .k = part(qkv, i, n, g),
                                              .v = part(qkv, i, n + g, g),
                                              .softmax_scale = scale,
                                              .out = View(out, i),
                                              .lse = View(lse, i)});
    };
    const OperationTimer::Call backward = [=, this](int i) {
      return run().attention_backward(exec(), {.q = part(qkv, i, 0, n),
                                               .k = part(qkv, i, n, g),
                                               .v = part(qkv, i, n + g, g),
                                               .out = View(out, i),
                                               .dout = View(dout, i),
                                               .lse = View(lse, i),
                                               .softmax_scale = scale,
                                               .dq = part(dqkv, i, 0, n),
                                               .dk = part(dqkv, i, n, g),
                                               .dv = part(dqkv, i, n + g, g)});
    };
    // Two products of the visible half forward, five backward.
    const double pairs = static_cast<double>(sequence) * static_cast<double>(sequence + 1) / 2;
    const double flops = 4 * static_cast<double>(batch * n * d) * pairs;
    // Before the backward pass, so that it has outputs and sums of its inputs.
    for (int i = 0; i < count; ++i) TE_RETURN_IF_ERROR(forward(i));
    TE_RETURN_IF_ERROR(AgainstPlans("attention_forward", shape, flops, forward, count));
    return AgainstPlans("attention_backward", shape, 2.5 * flops, backward, count);
  }

  // Beside the library's first choice, and those plans that were fastest when ours was chosen.
  Status AgainstPlans(const char* operation, const std::string& shape, double flops,
                      const OperationTimer::Call& call, int rotations) {
    constexpr size_t kKept = 5;
    if (!Wanted(operation, shape)) return OkStatus();
    TE_ASSIGN_OR_RETURN(cuda::CudaState * state, cuda::GetCudaState(exec()));
    SdpaCache* cache = SdpaCache::Of(state);
    cache->tune_knobs = options_.attention_knobs;
    cache->last = nullptr;
    TE_RETURN_IF_ERROR(call(0));
    SdpaGraph* graph = cache->last;
    if (graph == nullptr) {  // our own kernels
      TE_ASSIGN_OR_RETURN(const double seconds, timer_->Seconds(call, rotations));
      Add({operation, shape, seconds, flops / seconds, 0, true});
      return OkStatus();
    }
    const size_t chosen = graph->chosen();
    std::vector<size_t> plans(graph->plans().size());
    std::iota(plans.begin(), plans.end(), 0);
    // Infinite: the plan failed when it ran. The first choice comes first, whatever it took.
    std::erase_if(plans, [&](size_t p) { return !std::isfinite(graph->plans()[p].milliseconds); });
    if (!plans.empty()) {
      std::sort(plans.begin() + 1, plans.end(), [&](size_t a, size_t b) {
        return graph->plans()[a].milliseconds < graph->plans()[b].milliseconds;
      });
    }
    if (plans.size() > kKept) plans.resize(kKept);
    std::vector<OperationTimer::Call> calls = {call};
    for (const size_t plan : plans) {
      calls.emplace_back([=, &call](int i) {
        graph->Choose(plan);
        const Status status = call(i);
        graph->Choose(chosen);
        return status;
      });
    }
    TE_ASSIGN_OR_RETURN(const std::vector<double> seconds, timer_->Seconds(calls, rotations));
    const double best = *std::min_element(seconds.begin() + 1, seconds.end());
    Add({operation, fmt::format("{} of {}", shape, graph->plans().size()), seconds[0],
         flops / seconds[0], flops / best, true});
    for (size_t i = 0; i < plans.size(); ++i) {
      const SdpaPlan& plan = graph->plans()[plans[i]];
      fmt::print("    {:>10.1f} us  plan {}{}, workspace {} bytes{}\n", seconds[i + 1] * 1e6,
                 plans[i] == 0 ? "(cuDNN's first choice) " : "", plan.config, plan.workspace_bytes,
                 plans[i] == chosen ? ", ours" : "");
    }
    return OkStatus();
  }

  Status Gemms(const Model& model, int64_t tokens) {
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

  Status Gemm(const Model& model, const char* layer, GemmKind kind, int64_t tokens,
              int64_t out_features, int64_t in_features) {
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
    constexpr int kKept = 4;
    TE_ASSIGN_OR_RETURN(const int offered, candidates->Search(kKept));
    std::vector<OperationTimer::Call> calls = {[&](int i) { return run().gemm(exec(), args(i)); }};
    for (int k = 0; k < candidates->kept(); ++k)
      calls.emplace_back([&, k](int i) { return candidates->Run(k, args(i)); });
    TE_ASSIGN_OR_RETURN(const std::vector<double> seconds, timer_->Seconds(calls, count));
    const double best = *std::min_element(seconds.begin() + 1, seconds.end());
    const double flops = 2.0 * static_cast<double>(tokens) * static_cast<double>(out_features) *
                         static_cast<double>(in_features);
    Add({name, fmt::format("{} of {}", shape, offered), seconds[0], flops / seconds[0],
         flops / best, true});
    return OkStatus();
  }

  // With one scale a tensor (dy in E5M2, as hybrid has it), fast and split, and with float32 blocks
  // (weights in squares).
  Status Fp8Gemms(const Model& model, const char* layer, GemmKind kind, int64_t tokens,
                  int64_t out_features, int64_t in_features) {
    constexpr const char* kKinds[] = {"fprop", "dgrad", "wgrad"};
    const struct {
      const char* name;
      bool blocks, split;
    } modes[] = {
        {"tensor fast", false, false}, {"tensor split", false, true}, {"block", true, true}};
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

  StatusOr<std::vector<QuantizedTensor>> Quantized(const Shape& shape, int count,
                                                   QuantFormat format, QuantScaling scaling,
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

  OperationTimer* timer_;
  const Options& options_;
  double copy_ = 0;
  std::vector<Row> rows_;
};

Status Write(const std::vector<Row>& rows, const std::string& path) {
  JsonValue::Array out;
  for (const Row& row : rows) {
    out.push_back(JsonValue::MakeObject(
        {{"operation", JsonValue::String(row.operation)},
         {"shape", JsonValue::String(row.shape)},
         {"microseconds", JsonValue::Double(row.seconds * 1e6)},
         {row.flops ? "flops_per_second" : "bytes_per_second", JsonValue::Double(row.rate)},
         {"ceiling", JsonValue::Double(row.ceiling)}}));
  }
  TE_ASSIGN_OR_RETURN(const std::string text, WriteJson(JsonValue::MakeArray(std::move(out))));
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return IoError("{}: cannot be written", path);
  const bool written = std::fputs((text + "\n").c_str(), file) >= 0;
  if (std::fclose(file) != 0 || !written) return IoError("{}: cannot be written", path);
  return OkStatus();
}

Status RunBench(const Options& options) {
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<Context> context, Context::Create({.device = "cuda"}));
  TE_ASSIGN_OR_RETURN(const auto machine, DescribeMachine(context->device()));
  for (const auto& [name, value] : machine) fmt::print("{}: {}\n", name, value);
  TE_ASSIGN_OR_RETURN(OperationTimer timer, OperationTimer::Make(context.get()));
  if (options.hot) TE_RETURN_IF_ERROR(timer.StayHot());
  Bench bench(&timer, options);
  TE_RETURN_IF_ERROR(bench.Run());
  return options.json.empty() ? OkStatus() : Write(bench.rows(), options.json);
}

}  // namespace
}  // namespace te::bench

int main(int argc, char** argv) {
  te::bench::Options options;
  CLI::App app("Times the operations of a Llama step on a GPU, each against its ceiling.",
               "operations_cuda");
  app.add_option("--filter", options.filter,
                 "Only rows whose operation and shape hold this text: 'gemm wgrad 8B'");
  app.add_option("--tokens", options.tokens, "Tokens of a step")->capture_default_str();
  app.add_flag("--hot", options.hot,
               "Matrix products before each timing: the card has the clock that it has in a step");
  app.add_flag("--attention-knobs", options.attention_knobs,
               "Look beyond cuDNN's heuristics: each knob of the best attention plan, one by one");
  app.add_option("--json", options.json, "Write the rows to this file, too");
  CLI11_PARSE(app, argc, argv);

  if (const te::Status status = te::bench::RunBench(options); !status.ok()) {
    fmt::print(stderr, "operations_cuda: error: {}\n", status.message());
    return 2;
  }
  return 0;
}
