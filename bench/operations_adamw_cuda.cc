#include "bench/operations_cuda.h"
#include "fmt/format.h"

namespace te::bench {

// Of the gate and up weight; tokens play no part.
Status OperationsBench::Optimizer(const BenchModelShape& model) {
  const int64_t elements = 2 * model.ffn * model.hidden;
  TE_RETURN_IF_ERROR(timer_->context()->WriteScalars({.step = 3, .learning_rate = 1e-5f}));
  const StepScalars* scalars = timer_->context()->scalars();
  for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
    TE_RETURN_IF_ERROR(Memory(rounding == Rounding::kNearest ? "adamw" : "adamw stochastic", model,
                              0, 14 * elements,
                              [&, rounding](int count) -> StatusOr<OperationTimer::Call> {
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
Status OperationsBench::Float8Optimizer(const BenchModelShape& model, Rounding rounding,
                                        bool only_float8) {
  const Shape shape = {2 * model.ffn, model.hidden};
  const std::string operation = fmt::format("adamw fp8{}{}", only_float8 ? " weights" : "",
                                            rounding == Rounding::kStochastic ? " stochastic" : "");
  TE_RETURN_IF_ERROR(timer_->context()->WriteScalars({.step = 3, .learning_rate = 1e-5f}));
  return Memory(
      operation.c_str(), model, 0, (only_float8 ? 13 : 16) * shape.elements(),
      [&](int count) -> StatusOr<OperationTimer::Call> {
        TE_ASSIGN_OR_RETURN(const Buffers param, Random(only_float8 ? Shape{1} : shape, count));
        TE_ASSIGN_OR_RETURN(const Buffers grad, Random(shape, count));
        TE_ASSIGN_OR_RETURN(const Buffers m, Random(shape, count));
        TE_ASSIGN_OR_RETURN(const Buffers v, Random(shape, count));
        TE_ASSIGN_OR_RETURN(const Float8Copies copies, Float8(shape, count));
        TE_ASSIGN_OR_RETURN(const Buffers previous_scale_inv, Random({1}, 1, DType::kFloat32));
        TE_RETURN_IF_ERROR(timer_->context()->Zero(View(previous_scale_inv, 0)));
        for (int i = 0; i < count; ++i)  // a variance is not negative
          TE_RETURN_IF_ERROR(timer_->context()->Zero(View(v, i)));
        return OperationTimer::Call([=, this](int i) {
          AdamWArgs args = {.grad = View(grad, i), .m = View(m, i), .v = View(v, i)};
          if (only_float8) {
            args.previous_scale_inv = View(previous_scale_inv, 0).as<float>();
          } else {
            args.param = View(param, i);
          }
          args.rounding = rounding;
          args.scalars = timer_->context()->scalars();
          args.quantized_param = copies.Spec(i);
          return run().adamw(exec(), args);
        });
      });
}

}  // namespace te::bench
