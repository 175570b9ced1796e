#include <utility>

#include "bench/operations_cuda.h"
#include "fmt/format.h"

namespace te::bench {

Status OperationsBench::Norms(const BenchModelShape& model, int64_t tokens) {
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

Status OperationsBench::SwiGlu(const BenchModelShape& model, int64_t tokens) {
  const int64_t f = model.ffn;
  TE_RETURN_IF_ERROR(Memory("swiglu_forward", model, tokens, 6 * tokens * f,
                            [&, f, tokens](int count) -> StatusOr<OperationTimer::Call> {
                              TE_ASSIGN_OR_RETURN(const Buffers x, Random({tokens, 2 * f}, count));
                              TE_ASSIGN_OR_RETURN(const Buffers y, Random({tokens, f}, count));
                              return OperationTimer::Call([=, this](int i) {
                                return run().activation_forward(exec(),
                                                                {.x = View(x, i), .y = View(y, i)});
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
Status OperationsBench::Rope(const BenchModelShape& model, int64_t tokens) {
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
Status OperationsBench::Losses(const BenchModelShape& model, int64_t tokens) {
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

Status OperationsBench::Embeddings(const BenchModelShape& model, int64_t tokens) {
  const int64_t h = model.hidden, v = model.vocab;
  const auto ids = [&](int64_t distinct) -> StatusOr<std::shared_ptr<Tensor>> {
    TE_ASSIGN_OR_RETURN(Tensor integers, timer_->Integers(tokens, distinct));
    return std::make_shared<Tensor>(std::move(integers));
  };
  TE_RETURN_IF_ERROR(Memory(
      "embedding_forward", model, tokens, 4 * tokens * h,
      [&](int count) -> StatusOr<OperationTimer::Call> {
        TE_ASSIGN_OR_RETURN(const auto which, ids(v));
        TE_ASSIGN_OR_RETURN(const Buffers table, Random({v, h}, 2));
        TE_ASSIGN_OR_RETURN(const Buffers out, Random({tokens, h}, count));
        return OperationTimer::Call([=, this](int i) {
          return run().embedding_forward(
              exec(), {.ids = which->view(), .table = View(table, i % 2), .out = View(out, i)});
        });
      }));
  const auto backward = [&](const char* name, int64_t distinct) {
    return Memory(name, model, tokens, 2 * (v + tokens) * h,
                  [&](int count) -> StatusOr<OperationTimer::Call> {
                    TE_ASSIGN_OR_RETURN(const auto which, ids(distinct));
                    TE_ASSIGN_OR_RETURN(const Buffers dtable, Random({v, h}, count));
                    TE_ASSIGN_OR_RETURN(const Buffers dout, Random({tokens, h}, count));
                    return OperationTimer::Call([=, this](int i) {
                      return run().embedding_backward(
                          exec(),
                          {.ids = which->view(), .dout = View(dout, i), .dtable = View(dtable, i)});
                    });
                  });
  };
  TE_RETURN_IF_ERROR(backward("embedding_backward", v));
  return backward("embedding_backward one id", 1);
}

Status OperationsBench::Elementwise(const BenchModelShape& model, int64_t tokens) {
  const int64_t h = model.hidden;
  TE_ASSIGN_OR_RETURN(Tensor integers, timer_->Integers(2, 1));
  const auto counted = std::make_shared<Tensor>(std::move(integers));  // room for one int64
  TE_RETURN_IF_ERROR(Memory("count_nonfinite", model, tokens, 2 * tokens * h,
                            [&, h, tokens](int count) -> StatusOr<OperationTimer::Call> {
                              TE_ASSIGN_OR_RETURN(const Buffers x, Random({tokens, h}, count));
                              return OperationTimer::Call([=, this](int i) {
                                return run().count_nonfinite(
                                    exec(),
                                    {.x = View(x, i),
                                     .as = DType::kFloat16,
                                     .count = static_cast<int64_t*>(counted->view().data())});
                              });
                            }));
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

}  // namespace te::bench
