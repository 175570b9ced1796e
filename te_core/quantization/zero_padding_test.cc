// Sizes that fill no block behave as if padded with zeros: a linear layer of odd sizes against one
// of whole blocks whose tensors are the same ones and zeros.
#include <cmath>

#include "te_core/layers/linear.h"
#include "te_core/layers/testing/layer_harness.h"
#include "te_core/quantization/recipe.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::Must;
using test::MustOk;
using Doubles = std::vector<double>;

struct Sizes {
  int64_t tokens, in, out;
};
constexpr Sizes kOdd = {37, 51, 83}, kWhole = {128, 256, 128};

// [rows, columns] in the corner of [to_rows, to_columns], `padding` around it; or cut out again.
Doubles Resized(const Doubles& values, int64_t rows, int64_t columns, int64_t to_rows,
                int64_t to_columns, double padding = 0) {
  Doubles out(static_cast<size_t>(to_rows * to_columns), padding);
  for (int64_t r = 0; r < std::min(rows, to_rows); ++r) {
    for (int64_t c = 0; c < std::min(columns, to_columns); ++c)
      out[static_cast<size_t>(r * to_columns + c)] = values[static_cast<size_t>(r * columns + c)];
  }
  return out;
}

struct Results {
  Doubles y, dx, dw;
};

// The layer of odd sizes (padded nullopt), or of whole blocks with `padding` around x, w and dy,
// its results cut to the odd sizes.
Results Run(const Recipe* recipe, std::optional<double> padding) {
  const Sizes to = padding ? kWhole : kOdd;
  const auto context = test::NewContext();
  auto layer = Must(Linear::Create(context.get(),
                                   {.in_features = to.in,
                                    .out_features = to.out,
                                    .bias = false,
                                    .params_dtype = DType::kFloat32},
                                   "linear"));
  const auto tensor = [&](int64_t rows, int64_t columns, int64_t to_rows, int64_t to_columns,
                          uint64_t seed, double scale) {
    Doubles values = test::UniformDoubles(rows * columns, seed);
    for (double& value : values) value *= scale;
    return test::NewTensor(
        context.get(), DType::kFloat32, {to_rows, to_columns},
        Resized(values, rows, columns, to_rows, to_columns, padding.value_or(0) * scale));
  };
  const Tensor x = tensor(kOdd.tokens, kOdd.in, to.tokens, to.in, 1, 3.0);
  const Tensor w = tensor(kOdd.out, kOdd.in, to.out, to.in, 2, 0.5);
  const Tensor dy = tensor(kOdd.tokens, kOdd.out, to.tokens, to.out, 3, 1e-3);
  Parameter* weight = layer->Parameters()[0];
  MustOk(context->kernels().cast(context->exec(), {.x = w, .y = weight->MutableValue()}));
  Arena arena(context->memory());
  Saved saved(&arena);
  const Tensor y = Must(context->NewTensor(DType::kFloat32, {to.tokens, to.out}));
  const Tensor dx = Must(context->NewTensor(DType::kFloat32, {to.tokens, to.in}));
  // Twice: delayed scaling takes its scales from the first.
  for (int step = 0; step < 2; ++step) {
    context->BeginQuantization(recipe, {});
    ForwardArgs forward;
    forward.input = x;
    forward.output = y.view();
    MustOk(layer->Forward(forward, &saved));
    MustOk(context->EndQuantization());
    BackwardArgs backward;
    backward.doutput = dy;
    backward.dinput = dx.view();
    MustOk(layer->Backward(backward, &saved));
  }
  return {Resized(test::ToDoubles(y), to.tokens, to.out, kOdd.tokens, kOdd.out),
          Resized(test::ToDoubles(dx), to.tokens, to.in, kOdd.tokens, kOdd.in),
          Resized(test::ToDoubles(weight->grad), to.out, to.in, kOdd.out, kOdd.in)};
}

void ExpectZeroPadded(StatusOr<std::unique_ptr<Recipe>> made) {
  const auto recipe = Must(std::move(made));
  SCOPED_TRACE(recipe->name());
  const Results odd = Run(recipe.get(), std::nullopt), zeros = Run(recipe.get(), 0.0),
                ones = Run(recipe.get(), 1.0);
  // The same terms in another order: each sum errs by terms * u * sum |a b| at most, and twice that
  // is between them. Dequantized values are at most 1.25 times what they come from (E2M1).
  const auto check = [](const Doubles& got, const Doubles& want, const Doubles& other,
                        int64_t terms, double largest_a, double largest_b) {
    const auto n = static_cast<double>(terms);
    const double tolerance =
        2 * n * test::UnitRoundoff(DType::kFloat32) * n * 1.25 * 1.25 * largest_a * largest_b;
    EXPECT_TRUE(test::Near(got, want, tolerance));
    EXPECT_FALSE(test::Near(got, other, tolerance)) << "padding of ones";
  };
  check(odd.y, zeros.y, ones.y, kOdd.in, 3.0, 0.5);
  check(odd.dx, zeros.dx, ones.dx, kOdd.out, 1e-3, 0.5);
  check(odd.dw, zeros.dw, ones.dw, kOdd.tokens, 1e-3, 3.0);
}

TEST(ZeroPadding, EveryRecipe) {
  ExpectZeroPadded(MakeRecipe(DelayedScalingRecipe()));
  ExpectZeroPadded(MakeRecipe(Float8CurrentScalingRecipe()));
  ExpectZeroPadded(MakeRecipe(Float8BlockScalingRecipe()));
  ExpectZeroPadded(
      MakeRecipe(Float8BlockScalingRecipe{.x_block_scaling_dim = 2, .w_block_scaling_dim = 1}));
  ExpectZeroPadded(MakeRecipe(MXFP8BlockScalingRecipe()));
  ExpectZeroPadded(MakeRecipe(MXFP8BlockScalingRecipe{.enable_2d_quantization = true}));
  // Random numbers go by an element's place, and the Hadamard transform leaves the last rows, fewer
  // than 16, as they are: neither is that of a padded tensor.
  NVFP4BlockScalingRecipe nvfp4 = {.disable_rht = true, .disable_stochastic_rounding = true};
  ExpectZeroPadded(MakeRecipe(nvfp4));
  nvfp4.row_scaled_activation = true;
  ExpectZeroPadded(MakeRecipe(nvfp4));
  nvfp4.nvfp4_4over6 = Nvfp4Scope::kAll;
  ExpectZeroPadded(MakeRecipe(nvfp4));
  nvfp4.disable_2d_quantization = true;
  ExpectZeroPadded(MakeRecipe(nvfp4));
}

}  // namespace
}  // namespace te
