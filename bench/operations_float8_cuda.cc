// Operations that write FP8 copies of their result, both orientations, as an FP8 step has them.
#include "bench/operations_cuda.h"

namespace te::bench {

// Copies forward instead of y, backward beside dx.
Status OperationsBench::Float8Norms(const BenchModelShape& model, int64_t tokens) {
  const int64_t h = model.hidden;
  TE_RETURN_IF_ERROR(
      Memory("rms_norm_forward fp8", model, tokens, 4 * tokens * h,
             [&, h, tokens](int count) -> StatusOr<OperationTimer::Call> {
               TE_ASSIGN_OR_RETURN(const Buffers x, Random({tokens, h}, count));
               TE_ASSIGN_OR_RETURN(const Float8Copies copies, Float8({tokens, h}, count));
               TE_ASSIGN_OR_RETURN(const Buffers gamma, Random({h}, 1));
               TE_ASSIGN_OR_RETURN(const Buffers rstd, Random({tokens}, 1, DType::kFloat32));
               return OperationTimer::Call([=, this](int i) {
                 RmsNormForwardArgs args = {.x = View(x, i), .gamma = View(gamma, 0)};
                 args.y.quant = copies.Spec(i);
                 args.rstd = View(rstd, 0);
                 return run().rms_norm_forward(exec(), args);
               });
             }));
  return Memory("rms_norm_backward fp8", model, tokens, 10 * tokens * h,
                [&, h, tokens](int count) -> StatusOr<OperationTimer::Call> {
                  TE_ASSIGN_OR_RETURN(const Buffers x, Random({tokens, h}, count));
                  TE_ASSIGN_OR_RETURN(const Buffers dy, Random({tokens, h}, count));
                  TE_ASSIGN_OR_RETURN(const Buffers add, Random({tokens, h}, count));
                  TE_ASSIGN_OR_RETURN(const Buffers dx, Random({tokens, h}, count));
                  TE_ASSIGN_OR_RETURN(const Float8Copies copies, Float8({tokens, h}, count));
                  TE_ASSIGN_OR_RETURN(const Buffers gamma, Random({h}, 2));
                  TE_ASSIGN_OR_RETURN(const Buffers rstd, Random({tokens}, 1, DType::kFloat32));
                  return OperationTimer::Call([=, this](int i) {
                    RmsNormBackwardArgs args = {.dy = View(dy, i), .x = View(x, i)};
                    args.gamma = View(gamma, 0);
                    args.rstd = View(rstd, 0);
                    args.add = View(add, i);
                    args.dx = Sink(View(dx, i));
                    args.dx.quant = copies.Spec(i);
                    args.dgamma = View(gamma, 1);
                    return run().rms_norm_backward(exec(), args);
                  });
                });
}

// Copies instead of y and of dx.
Status OperationsBench::Float8SwiGlu(const BenchModelShape& model, int64_t tokens) {
  const int64_t f = model.ffn;
  TE_RETURN_IF_ERROR(
      Memory("swiglu_forward fp8", model, tokens, 6 * tokens * f,
             [&, f, tokens](int count) -> StatusOr<OperationTimer::Call> {
               TE_ASSIGN_OR_RETURN(const Buffers x, Random({tokens, 2 * f}, count));
               TE_ASSIGN_OR_RETURN(const Float8Copies copies, Float8({tokens, f}, count));
               return OperationTimer::Call([=, this](int i) {
                 ActivationForwardArgs args = {.x = View(x, i)};
                 args.y.quant = copies.Spec(i);
                 return run().activation_forward(exec(), args);
               });
             }));
  return Memory("swiglu_backward fp8", model, tokens, 10 * tokens * f,
                [&, f, tokens](int count) -> StatusOr<OperationTimer::Call> {
                  TE_ASSIGN_OR_RETURN(const Buffers x, Random({tokens, 2 * f}, count));
                  TE_ASSIGN_OR_RETURN(const Buffers dy, Random({tokens, f}, count));
                  TE_ASSIGN_OR_RETURN(const Float8Copies copies, Float8({tokens, 2 * f}, count));
                  return OperationTimer::Call([=, this](int i) {
                    ActivationBackwardArgs args = {.x = View(x, i), .dy = View(dy, i)};
                    args.dx.quant = copies.Spec(i);
                    return run().activation_backward(exec(), args);
                  });
                });
}

// The gradient of a packed QKV product, its values copied; and what has no producer of ours:
// attention's output.
Status OperationsBench::Float8Attention(const BenchModelShape& model, int64_t tokens) {
  const int64_t d = model.head_dim, rotated = model.heads + model.groups;
  const int64_t all = model.heads + 2 * model.groups;
  TE_RETURN_IF_ERROR(Memory(
      "rope_backward fp8", model, tokens, 4 * tokens * all * d,
      [&](int count) -> StatusOr<OperationTimer::Call> {
        TE_ASSIGN_OR_RETURN(const Buffers dqkv, Random({1, tokens, all * d}, count));
        TE_ASSIGN_OR_RETURN(const Buffers tables, Random({tokens, d / 2}, 2, DType::kFloat32));
        TE_ASSIGN_OR_RETURN(const Float8Copies copies, Float8({tokens, all * d}, count));
        return OperationTimer::Call([=, this](int i) {
          RopeArgs args = {.x = View(dqkv, i).Split(2, all, d)};
          args.cos = View(tables, 0);
          args.sin = View(tables, 1);
          args.inverse = true;
          args.num_rotated_heads = rotated;
          args.y.quant = copies.Spec(i);
          return run().rope(exec(), args);
        });
      }));
  const int64_t h = model.heads * d;
  return Memory("quantize fp8", model, tokens, 4 * tokens * h,
                [&, h, tokens](int count) -> StatusOr<OperationTimer::Call> {
                  TE_ASSIGN_OR_RETURN(const Buffers x, Random({tokens, h}, count));
                  TE_ASSIGN_OR_RETURN(const Float8Copies copies, Float8({tokens, h}, count));
                  return OperationTimer::Call([=, this](int i) {
                    return run().quantize(exec(), {.x = View(x, i), .out = copies.Spec(i)});
                  });
                });
}

}  // namespace te::bench
