// Embedding, CrossEntropy and LinearCrossEntropy against their equations.
#include <algorithm>
#include <cmath>

#include "te_core/layers/cross_entropy.h"
#include "te_core/layers/embedding.h"
#include "te_core/layers/linear_cross_entropy.h"
#include "te_core/layers/testing/layer_harness.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::Complex;
using test::Get;
using test::Must;
using test::MustOk;
using test::Tensors;
using test::Values;

// loss[t] of logits [T, V].
Values CrossEntropyReference(const Values& logits, const std::vector<int32_t>& labels,
                             double smoothing) {
  const size_t vocab = logits.size() / labels.size();
  Values loss;
  for (size_t t = 0; t < labels.size(); ++t) {
    if (labels[t] == kIgnoreIndex) {
      loss.push_back(0);
      continue;
    }
    Complex sum = 0, mean = 0;
    for (size_t v = 0; v < vocab; ++v) {
      sum += std::exp(logits[t * vocab + v]);
      mean += logits[t * vocab + v] / static_cast<double>(vocab);
    }
    loss.push_back(std::log(sum) -
                   (1 - smoothing) * logits[t * vocab + static_cast<size_t>(labels[t])] -
                   smoothing * mean);
  }
  return loss;
}

class LossTest : public ::testing::TestWithParam<DType> {
 protected:
  Tensor Uniform(const Shape& shape, uint64_t seed, double scale = 1) {
    return test::NewTensor(context_.get(), GetParam(), shape,
                           test::UniformDoubles(shape.elements(), seed, -scale, scale));
  }
  std::unique_ptr<Context> context_ = test::NewContext();
};
INSTANTIATE_TEST_SUITE_P(, LossTest, ::testing::Values(DType::kFloat32, DType::kBFloat16),
                         [](const auto& info) { return Name(info.param); });

TEST_P(LossTest, EmbeddingPicksRowsAndSumsTheirGradients) {
  auto layer = Must(Embedding::Create(
      context_.get(), {.vocab_size = 5, .hidden_size = 3, .params_dtype = GetParam()},
      "embedding"));
  test::Randomize(layer.get(), 1, 1);
  const std::vector<int32_t> ids = {4, 0, 4, 2, 1, 4};
  const Tensor input = test::NewInt32(context_.get(), {2, 3}, ids);
  test::LayerRun run;
  run.layer = layer.get();
  run.forward.input = input;
  run.output_shape = {2, 3, 3};
  run.output_dtype = GetParam();
  run.wants_dinput = false;
  test::ExpectMatchesReference(
      run,
      [&](const Tensors& t) {
        const Values table = Get(t, "weight");
        Values out;
        for (int32_t id : ids) {
          for (int h = 0; h < 3; ++h) out.push_back(table[static_cast<size_t>(id * 3 + h)]);
        }
        return out;
      },
      6, 1, 2);
  SavedPool pool(context_->memory());
  auto slot = Must(pool.Acquire());
  Tensor dinput = Must(context_->NewTensor(GetParam(), {2, 3, 3}));
  BackwardArgs args;
  args.dinput = dinput.view();
  EXPECT_TRUE(test::FailsWith(layer->BackwardInput(args, &slot->root), StatusCode::kInvalidArgument,
                              "token ids have no gradient"));
}

TEST_P(LossTest, TheEmbeddingsPaddingRowIsZeroAtFirstAndGetsNoGradient) {
  const auto make = [&](int64_t padding_idx) {
    return Embedding::Create(
        context_.get(),
        {.vocab_size = 5, .hidden_size = 3, .params_dtype = GetParam(), .padding_idx = padding_idx},
        "embedding");
  };
  for (const int64_t padding_idx : {-1, 0, 4}) {
    auto layer = Must(make(padding_idx));
    const std::vector<double> weight = test::ToDoubles(layer->weight().value);
    for (size_t i = 0; i < 15; ++i) {
      EXPECT_EQ(weight[i] == 0, static_cast<int64_t>(i) / 3 == padding_idx) << i;
    }
    EXPECT_EQ(layer->Describe(0).find("padding_idx") == std::string::npos, padding_idx == -1);
    const std::vector<int32_t> ids = {4, 0, 4, 2};
    const Tensor input = test::NewInt32(context_.get(), {4}, ids);
    SavedPool pool(context_->memory());
    auto slot = Must(pool.Acquire());
    const Tensor x = Uniform({4, 3}, 1), dx = test::NewTensor(context_.get(), GetParam(), {4, 3},
                                                              std::vector<double>(12, 0.5));
    for (const bool accumulate : {false, true}) {
      ForwardArgs forward;
      forward.input = input;
      forward.output = x.view();
      MustOk(layer->Forward(forward, &slot->root));
      MustOk(layer->EnsureGradients());
      BackwardArgs backward;
      backward.doutput = dx;
      backward.accumulate_gradients = accumulate;
      MustOk(layer->Backward(backward, &slot->root));
      const std::vector<double> grad = test::ToDoubles(layer->weight().grad);
      const double once = accumulate ? 1.0 : 0.5;  // of one token
      for (size_t i = 0; i < 15; ++i) {
        const auto row = static_cast<int64_t>(i) / 3;
        const double tokens = row == 4 ? 2 : row == 0 || row == 2 ? 1 : 0;
        EXPECT_EQ(grad[i], row == padding_idx ? 0 : tokens * once) << i;
      }
    }
  }
  for (const int64_t padding_idx : {-2, 5}) {
    EXPECT_TRUE(test::FailsWith(make(padding_idx).status(), StatusCode::kInvalidArgument,
                                "expected -1 (none) or a row from 0 to 4"));
  }
}

TEST_P(LossTest, CrossEntropyMatchesItsEquation) {
  for (float smoothing : {0.0f, 0.1f}) {
    auto layer = Must(CrossEntropy::Create(context_.get(), {.label_smoothing = smoothing}, "loss"));
    const std::vector<int32_t> labels = {3, kIgnoreIndex, 0, 6};
    const Tensor logits = Uniform({2, 2, 7}, 1, 2),
                 label_tensor = test::NewInt32(context_.get(), {2, 2}, labels);
    test::LayerRun run;
    run.layer = layer.get();
    run.forward.input = logits;
    run.forward.labels = label_tensor;
    run.output_shape = {2, 2};
    run.doutput = false;
    test::ExpectMatchesReference(
        run,
        [&](const Tensors& t) { return CrossEntropyReference(Get(t, "input"), labels, smoothing); },
        7, 4, 2);
  }
}

TEST_P(LossTest, LinearCrossEntropyMatchesItsEquationForAnyChunk) {
  const int64_t T = 7, H = 5, V = 11;
  const std::vector<int32_t> labels = {3, kIgnoreIndex, 0, 10, 7, kIgnoreIndex, 3};
  const Tensor x = Uniform({T, H}, 1), label_tensor = test::NewInt32(context_.get(), {T}, labels);
  test::Results whole;
  for (size_t tokens : {100, 3, 1}) {
    auto layer =
        Must(LinearCrossEntropy::Create(context_.get(),
                                        {.hidden_size = H,
                                         .vocab_size = V,
                                         .label_smoothing = 0.1f,
                                         .max_logits_bytes = tokens * V * SizeOf(GetParam()),
                                         .params_dtype = GetParam()},
                                        "head"));
    test::Randomize(layer.get(), 5, 0.7);
    test::LayerRun run;
    run.layer = layer.get();
    run.forward.input = x;
    run.forward.labels = label_tensor;
    run.output_shape = {T};
    run.doutput = false;
    const test::Reference reference = [&](const Tensors& t) {
      return CrossEntropyReference(test::LinearReference(Get(t, "input"), Get(t, "weight"), {}, H),
                                   labels, 0.1f);
    };
    test::ExpectMatchesReference(run, reference, V + H, 3, 2);

    // One pass with everything: the same gradients, and the step's scalars.
    const test::Results want = test::Run(run, test::OutputWeights(run, 2));
    MustOk(context_->WriteScalars({.loss_sum = 2, .token_count = 3}));
    Tensor dx = Uniform({T, H}, 9), loss = Must(context_->NewTensor(DType::kFloat32, {T}));
    MustOk(layer->EnsureGradients());
    int calls = 0;
    const GradientReady ready = [&](Parameter& parameter) {
      calls += &parameter == &layer->weight();
      return OkStatus();
    };
    const LinearCrossEntropyArgs args = {.input = x,
                                         .labels = label_tensor,
                                         .loss = loss.view(),
                                         .scalars = context_->scalars(),
                                         .dinput = dx.view(),
                                         .weight_gradient = true,
                                         .gradient_ready = &ready};
    MustOk(layer->Run(args));
    EXPECT_EQ(calls, 1);
    EXPECT_EQ(test::ToDoubles(dx), want.at("input"));
    EXPECT_EQ(test::ToDoubles(layer->weight().grad), want.at("weight"));
    EXPECT_EQ(test::ToDoubles(loss), want.at("output"));
    const StepScalars scalars = Must(context_->ReadScalars());
    EXPECT_EQ(scalars.token_count, 3 + 5);
    double sum = 2;
    for (double v : want.at("output")) sum += v;
    EXPECT_NEAR(scalars.loss_sum, sum, 1e-12);

    // Accumulation adds, forward alone leaves gradients alone.
    LinearCrossEntropyArgs more = args;
    more.accumulate_gradients = true;
    MustOk(layer->Run(more));
    std::vector<double> doubled = want.at("weight");
    double largest = 0;
    for (double& v : doubled) largest = std::max(largest, std::abs(v *= 2));
    EXPECT_TRUE(test::Near(test::ToDoubles(layer->weight().grad), doubled,
                           test::Tolerance(GetParam(), T, 7) * largest));
    EXPECT_FALSE(test::Near(test::ToDoubles(layer->weight().grad), want.at("weight"),
                            test::Tolerance(GetParam(), T, 7) * largest));
    const std::vector<uint8_t> before = test::BytesOf(layer->weight().grad);
    MustOk(layer->Run({.input = x, .labels = label_tensor, .loss = loss.view()}));
    EXPECT_EQ(test::BytesOf(layer->weight().grad), before);
    EXPECT_EQ(test::ToDoubles(loss), want.at("output"));
  }
}

TEST_P(LossTest, ATiedHeadAddsToTheEmbeddingsGradientAndLeavesTheCallbackToIt) {
  const int64_t T = 4, H = 3, V = 6;
  auto embedding = Must(Embedding::Create(
      context_.get(), {.vocab_size = V, .hidden_size = H, .params_dtype = GetParam()},
      "embedding"));
  auto head = Must(LinearCrossEntropy::Create(
      context_.get(), {.hidden_size = H, .vocab_size = V, .params_dtype = GetParam()}, "head",
      &embedding->weight()));
  EXPECT_TRUE(head->Parameters().empty());
  test::Randomize(embedding.get(), 1, 0.7);
  const std::vector<int32_t> ids = {5, 1, 1, 0};
  const Tensor input = test::NewInt32(context_.get(), {T}, ids),
               labels = test::NewInt32(context_.get(), {T}, {1, 2, 3, 4});
  SavedPool pool(context_->memory());
  auto slot = Must(pool.Acquire());
  Tensor x = Uniform({T, H}, 1), dx = Uniform({T, H}, 1);
  ForwardArgs forward;
  forward.input = input;
  forward.output = x.view();
  MustOk(embedding->Forward(forward, &slot->root));
  MustOk(embedding->EnsureGradients());
  int calls = 0;
  const GradientReady ready = [&](Parameter&) {
    ++calls;
    return OkStatus();
  };
  MustOk(head->Run({.input = x,
                    .labels = labels,
                    .dinput = dx.view(),
                    .weight_gradient = true,
                    .gradient_ready = &ready}));
  EXPECT_EQ(calls, 0);
  std::vector<double> want = test::ToDoubles(embedding->weight().grad);
  const std::vector<double> alone = want, dxs = test::ToDoubles(dx);
  for (size_t t = 0; t < ids.size(); ++t) {
    for (size_t h = 0; h < static_cast<size_t>(H); ++h)
      want[static_cast<size_t>(ids[t] * H) + h] += dxs[t * static_cast<size_t>(H) + h];
  }
  BackwardArgs backward;
  backward.doutput = dx;
  backward.accumulate_gradients = true;
  backward.gradient_ready = &ready;
  MustOk(embedding->Backward(backward, &slot->root));
  EXPECT_EQ(calls, 1);
  const double tolerance = test::Tolerance(GetParam(), T, 2) * test::MaxAbs(want);
  EXPECT_TRUE(test::Near(test::ToDoubles(embedding->weight().grad), want, tolerance));
  EXPECT_FALSE(test::Near(test::ToDoubles(embedding->weight().grad), alone, tolerance));
}

TEST(LinearCrossEntropyTest, WritesLogitsWholeAndRefusesWrongShapes) {
  auto context = test::NewContext();
  auto head = Must(
      LinearCrossEntropy::Create(context.get(), {.hidden_size = 2, .vocab_size = 3}, "lm_head"));
  test::FromDoubles({1, 0, 0, 1, 1, 1}, head->weight().MutableValue());
  const Tensor x = test::NewTensor(context.get(), DType::kFloat32, {1, 2}, {3, 5}),
               labels = test::NewInt32(context.get(), {2}, {0, 1});
  Tensor logits = Must(context->NewTensor(DType::kFloat32, {1, 3}));
  MustOk(head->Logits(x, logits.view()));
  EXPECT_EQ(test::ToDoubles(logits), (std::vector<double>{3, 5, 8}));
  EXPECT_TRUE(test::FailsWith(head->Run({.input = x, .labels = labels}),
                              StatusCode::kInvalidArgument,
                              "lm_head: labels is int32 [2]; expected dense int32 [1]"));
  Parameter other;
  other.value = test::NewTensor(context.get(), DType::kFloat32, {2, 2}, {1, 2, 3, 4});
  EXPECT_TRUE(
      test::FailsWith(LinearCrossEntropy::Create(context.get(), {.hidden_size = 2, .vocab_size = 3},
                                                 "lm_head", &other)
                          .status(),
                      StatusCode::kInvalidArgument,
                      "lm_head: shared weight is float32 [2, 2]; expected dense float32 [3, 2]"));
}

TEST(LinearCrossEntropyTest, NoTokensGiveZeroGradients) {
  auto context = test::NewContext();
  auto head = Must(
      LinearCrossEntropy::Create(context.get(), {.hidden_size = 2, .vocab_size = 3}, "lm_head"));
  const Tensor x = test::NewTensor(context.get(), DType::kFloat32, {0, 2}, {}),
               labels = test::NewInt32(context.get(), {0}, {});
  MustOk(head->Run(
      {.input = x, .labels = labels, .scalars = context->scalars(), .weight_gradient = true}));
  EXPECT_EQ(test::ToDoubles(head->weight().grad), std::vector<double>(6, 0));
  EXPECT_EQ(Must(context->ReadScalars()).token_count, 0);
}

}  // namespace
}  // namespace te
