// A SwiGLU channel whose gate and up weights are aligned (arXiv 2409.12517): its output is silu(a)
// * a, which grows with the square of the weights' norm. What that does to scales and to the other
// channels.
#include <cmath>

#include "te_core/layers/layer_norm_mlp.h"
#include "te_core/layers/testing/layer_harness.h"
#include "te_core/quantization/recipe.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

using test::Must;
using test::MustOk;
using Doubles = std::vector<double>;

class AlignedSwiGluTest : public ::testing::Test {
 protected:
  static constexpr int64_t kTokens = 64, kHidden = 64, kFfn = 256, kChannel = 5;

  // The channel's gate is norm * v; so is its up row when aligned, else it is an unrelated one of
  // norm 1. fc2 reads the channel with weights of its own, or not at all.
  void SetChannel(double norm, bool aligned, bool read) {
    Doubles fc1 = fc1_, fc2 = fc2_;
    for (int64_t i = 0; i < kHidden; ++i) {
      const double v = direction_[static_cast<size_t>(i)];
      fc1[static_cast<size_t>(kChannel * kHidden + i)] = norm * v;
      fc1[static_cast<size_t>((kFfn + kChannel) * kHidden + i)] =
          aligned ? norm * v : unrelated_[static_cast<size_t>(i)];
      if (!read) fc2[static_cast<size_t>(i * kFfn + kChannel)] = 0;
    }
    Set(0, fc1);
    Set(1, fc2);
  }
  Doubles Forward(const Recipe* recipe) {
    Tensor y = Must(context_->NewTensor(DType::kFloat32, {kTokens, kHidden}));
    Arena arena(context_->memory());
    Saved saved(&arena);
    ForwardArgs args;
    args.input = x_;
    args.output = y.view();
    if (recipe != nullptr) context_->BeginQuantization(recipe, {});
    MustOk(layer_->Forward(args, &saved));
    if (recipe != nullptr) MustOk(context_->EndQuantization());
    return test::ToDoubles(y);
  }
  double ErrorOf(const Recipe* recipe) {
    const Doubles want = Forward(nullptr), got = Forward(recipe);
    double sum = 0, norm = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_TRUE(std::isfinite(got[i]));
      sum += (got[i] - want[i]) * (got[i] - want[i]);
      norm += want[i] * want[i];
    }
    return std::sqrt(sum / norm);
  }
  // The amax of fc2's input in the last step under delayed scaling.
  double LastAmax() {
    for (const auto& state : Must(context_->delayed_scaling().Export(context_->exec())))
      if (state.name == "mlp.fc2.input") return state.amax_history.back();
    ADD_FAILURE() << "no state of mlp.fc2.input";
    return 0;
  }

 private:
  static std::unique_ptr<LayerNormMLP> Make(Context* context) {
    auto layer = Must(LayerNormMLP::Create(context,
                                           {.hidden_size = kHidden,
                                            .ffn_hidden_size = kFfn,
                                            .bias = false,
                                            .normalization = NormalizationKind::kRmsNorm,
                                            .activation = ActivationKind::kSwiglu,
                                            .params_dtype = DType::kFloat32},
                                           "mlp"));
    test::Randomize(layer.get(), 1, 0.2);
    return layer;
  }
  Parameter* Weight(int i) {
    std::vector<Parameter*> matrices;
    for (Parameter* parameter : layer_->Parameters())
      if (parameter->value.shape().rank() == 2) matrices.push_back(parameter);
    return matrices.at(static_cast<size_t>(i));
  }
  void Set(int i, const Doubles& values) {
    Parameter* weight = Weight(i);
    const Tensor tensor =
        test::NewTensor(context_.get(), DType::kFloat32, weight->value.shape(), values);
    MustOk(context_->kernels().cast(context_->exec(), {.x = tensor, .y = weight->MutableValue()}));
  }
  static Doubles UnitVector(uint64_t seed) {
    Doubles v = test::NormalDoubles(kHidden, seed);
    double squares = 0;
    for (const double x : v) squares += x * x;
    for (double& x : v) x /= std::sqrt(squares);
    return v;
  }

  std::unique_ptr<Context> context_ = test::NewContext();
  std::unique_ptr<LayerNormMLP> layer_ = Make(context_.get());
  Tensor x_ = test::NewTensor(context_.get(), DType::kFloat32, {kTokens, kHidden},
                              test::NormalDoubles(kTokens* kHidden, 2));
  Doubles fc1_ = test::ToDoubles(Weight(0)->value), fc2_ = test::ToDoubles(Weight(1)->value);
  Doubles direction_ = UnitVector(3), unrelated_ = UnitVector(4);
};

// A doubling of the norm makes the amax four times what delayed scaling has seen. The step after it
// is clipped, in fc1's weight, whose amax has doubled, and in fc2's input; the next one knows the
// weight's amax but of the input that of the clipped step; the third is as good as those before.
TEST_F(AlignedSwiGluTest, DelayedScalingClipsTwoStepsOfQuadraticGrowth) {
  const auto recipe = Must(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 4}));
  const auto settle = [&](double norm, bool aligned) {
    SetChannel(norm, aligned, true);
    for (int step = 0; step < 8; ++step) Forward(recipe.get());  // nothing else is remembered
    return LastAmax();
  };
  // silu(a) a = a^2 but for e^-a: at the amax a is beyond 30. Scales are twice what they were,
  // codes the same.
  const double of_16 = settle(16, true);
  EXPECT_NEAR(settle(32, true) / of_16, 4, 1e-3);
  // The twin: of the gate alone the growth is linear.
  const double gate_of_16 = settle(16, false);
  EXPECT_NEAR(settle(32, false) / gate_of_16, 2, 1e-3);

  settle(16, true);
  // A cast's step is at most 2^-3 of a value, its error in the root mean square 2^-4 / sqrt(3);
  // four casts (fc1's input and weight, which the square counts twice, fc2's), some at the upper
  // end.
  constexpr double kSettled = 0.08;
  EXPECT_LT(ErrorOf(recipe.get()), kSettled);
  SetChannel(32, true, true);
  const double first = ErrorOf(recipe.get()), second = ErrorOf(recipe.get());
  EXPECT_GT(first, 0.5);  // the outlier is most of the output; up to 3/4 of it are missing
  EXPECT_LT(first, 1.0);
  EXPECT_GT(second, kSettled);
  EXPECT_LT(second, first);
  EXPECT_LT(ErrorOf(recipe.get()), kSettled);
}

// Channels beside the outlier: under one scale for all they fall below E4M3's smallest number, in
// blocks along the sum only those of its own block do.
TEST_F(AlignedSwiGluTest, BlocksConfineWhatTheChannelCosts) {
  const auto current = Must(MakeRecipe(Float8CurrentScalingRecipe()));
  const auto block = Must(MakeRecipe(Float8BlockScalingRecipe()));
  const auto mxfp8 = Must(MakeRecipe(MXFP8BlockScalingRecipe()));
  SetChannel(1, true, false);
  for (const auto* recipe : {&current, &block, &mxfp8}) EXPECT_LT(ErrorOf(recipe->get()), 0.08);
  SetChannel(4096, true, false);
  const double of_tensor = ErrorOf(current.get()), of_block = ErrorOf(block.get()),
               of_mx = ErrorOf(mxfp8.get());
  EXPECT_GT(of_tensor, 0.5);
  // Half of the channels are in the outlier's block of 128, an eighth in its 32: tokens that have
  // the outlier lose the square root of that.
  EXPECT_LT(of_block, 0.85 * of_tensor);
  EXPECT_LT(of_mx, 0.5 * of_tensor);
  EXPECT_GT(of_mx, 0.08) << "the outlier's own block";
}

}  // namespace
}  // namespace te
