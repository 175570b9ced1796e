// Every child of a TransformerLayer behind a wrapper that only forwards. With the capabilities
// passed on, bits and executed operations are the same; with the capabilities hidden, the parent
// does in operations of its own what the child would have fused, and the numbers stay right.
#include <functional>
#include <map>

#include "bench/timed_device.h"
#include "te_core/layers/recomputed_layer.h"
#include "te_core/layers/testing/layer_harness.h"
#include "te_core/layers/transformer_layer.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"

namespace te {
namespace {

using test::Must;
using test::MustOk;

class Wrapper : public Layer {
 public:
  Wrapper(std::unique_ptr<Layer> layer, bool hides)
      : Layer(layer->context(), layer->name()), hides_(hides) {
    AddChild("", std::move(layer));
  }
  Capabilities capabilities() const override {
    return hides_ ? Capabilities() : child(0)->capabilities();
  }
  StatusOr<QuantSpec> WantedInput(const TokenLayout& layout, Saved* saved) override {
    return hides_ ? QuantSpec() : child(0)->WantedInput(layout, saved->child(0));
  }
  Status Forward(const ForwardArgs& args, Saved* saved) override {
    return child(0)->Forward(args, saved != nullptr ? saved->child(0) : nullptr);
  }
  StatusOr<QuantSpec> WantedGradOutput(Saved* saved, Arena* arena) override {
    return hides_ ? QuantSpec() : child(0)->WantedGradOutput(saved->child(0), arena);
  }
  Status BackwardInput(const BackwardArgs& args, Saved* saved) override {
    return child(0)->BackwardInput(args, saved->child(0));
  }
  Status BackwardWeight(const BackwardArgs& args, Saved* saved) override {
    return child(0)->BackwardWeight(args, saved->child(0));
  }
  std::string Describe(int indent) const override { return child(0)->Describe(indent); }

 private:
  bool hides_;
};

// A place in the tree: the names of the children on the way to it.
using Place = std::vector<std::string>;
const std::vector<Place> kPlaces = {{"self_attention"},
                                    {"self_attention", "layernorm_qkv"},
                                    {"self_attention", "core_attention"},
                                    {"self_attention", "proj"},
                                    {"layernorm_mlp"}};

void WrapAt(Layer* layer, const Place& place, const Layer::Wrap& wrap) {
  for (size_t i = 0; i + 1 < place.size(); ++i) {
    Layer* next = nullptr;
    for (const Layer::Child& child : layer->children())
      if (child.name == place[i]) next = child.layer.get();
    ASSERT_NE(next, nullptr) << place[i];
    layer = next;
  }
  MustOk(layer->WrapChild(place.back(), wrap));
}

struct Outcome {
  std::vector<test::Results> steps;
  std::map<std::string, int64_t> executed;  // calls of each operation in the last step
};

// Three steps of training, the first calibrating where the recipe does; their results.
Outcome Train(TransformerLayerOptions options, const Recipe* recipe,
              const std::function<void(Layer*)>& change) {
  auto context = Must(Context::Create({.num_threads = 1, .seed = 7},
                                      bench::MakeTimedDevice(Must(MakeDevice("cpu")))));
  auto layer = Must(TransformerLayer::Create(context.get(), options, "block"));
  change(layer.get());
  test::Randomize(layer.get(), 1, 0.2);
  const Shape shape = {2, 16, options.hidden_size};
  const Tensor x = test::NewTensor(context.get(), options.params_dtype, shape,
                                   test::UniformDoubles(shape.elements(), 3));
  test::LayerRun run = {.layer = layer.get(), .output_shape = shape};
  run.output_dtype = options.params_dtype;
  run.forward.input = x;
  const std::vector<double> weights = test::OutputWeights(run, 4);
  Outcome out;
  for (int step = 0; step < 3; ++step) {
    bench::ResetProfile();
    context->BeginQuantization(
        recipe, {.calibrating = step == 0 && recipe != nullptr && recipe->calibrates()});
    out.steps.push_back(test::Run(run, weights));
    MustOk(context->EndQuantization());
    out.executed.clear();
    for (const auto& [name, time] : bench::CurrentProfile()) out.executed[name] = time.calls;
  }
  return out;
}

TransformerLayerOptions LlamaLayer() { return test::SmallLlamaLayer(); }

TransformerLayerOptions GptLayer() {
  TransformerLayerOptions o = test::SmallLlamaLayer();
  o.bias = true;
  o.normalization = NormalizationKind::kLayerNorm;
  o.activation = ActivationKind::kGelu;
  o.hidden_dropout = 0.1f;
  o.attention_dropout = 0.1f;
  return o;
}

std::vector<std::unique_ptr<Recipe>> Recipes(bool attention) {
  std::vector<std::unique_ptr<Recipe>> recipes;
  recipes.push_back(nullptr);
  recipes.push_back(Must(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 2})));
  if (attention) {
    recipes.push_back(
        Must(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 2, .fp8_dpa = true})));
  }
  recipes.push_back(Must(MakeRecipe(Float8CurrentScalingRecipe())));
  recipes.push_back(Must(MakeRecipe(Float8BlockScalingRecipe())));
  return recipes;
}

TEST(WrappedLayer, WithItsCapabilitiesChangesNothing) {
  for (const TransformerLayerOptions& options : {LlamaLayer(), GptLayer()}) {
    for (const auto& recipe : Recipes(options.attention_dropout == 0)) {
      const Outcome plain = Train(options, recipe.get(), [](Layer*) {});
      ASSERT_GT(plain.executed.size(), 8u);
      for (const Place& place : kPlaces) {
        SCOPED_TRACE(place.back() + (recipe == nullptr ? "" : ", " + recipe->name()));
        const Outcome wrapped = Train(options, recipe.get(), [&](Layer* layer) {
          WrapAt(layer, place, [](std::unique_ptr<Layer> child) {
            return std::make_unique<Wrapper>(std::move(child), false);
          });
        });
        EXPECT_EQ(wrapped.executed, plain.executed);
        for (size_t i = 0; i < plain.steps.size(); ++i)
          EXPECT_TRUE(test::ResultsEqual(wrapped.steps[i], plain.steps[i])) << "step " << i;
      }
    }
  }
}

TEST(WrappedLayer, HidingItsCapabilitiesKeepsTheNumbers) {
  constexpr double kFloor = 1;  // of gradients that vanish by symmetry, as a key's bias has
  for (const TransformerLayerOptions& options : {LlamaLayer(), GptLayer()}) {
    // One operation more for each that is not fused, each rounding once.
    const double tolerance = test::Tolerance(options.params_dtype, options.hidden_size, 8);
    const Outcome plain = Train(options, nullptr, [](Layer*) {});
    for (const Place& place : kPlaces) {
      SCOPED_TRACE(place.back());
      const Outcome hidden = Train(options, nullptr, [&](Layer* layer) {
        WrapAt(layer, place, [](std::unique_ptr<Layer> child) {
          return std::make_unique<Wrapper>(std::move(child), true);
        });
      });
      for (size_t i = 0; i < plain.steps.size(); ++i) {
        EXPECT_TRUE(test::ResultsNear(hidden.steps[i], plain.steps[i], tolerance, kFloor));
        test::Results disturbed = plain.steps[i];
        disturbed.begin()->second[0] += 1e-2;
        EXPECT_FALSE(test::ResultsNear(hidden.steps[i], disturbed, tolerance, kFloor));
      }
      // Core attention fuses nothing without FP8; all others take a residual.
      EXPECT_EQ(hidden.executed != plain.executed, place.back() != "core_attention");
    }
  }
}

// Codes that a wrapper does not pass on are made and read by casts, which gives the same bits.
TEST(WrappedLayer, HiddenCodesOfAttentionAreTheSameBits) {
  const auto recipe =
      Must(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 2, .fp8_dpa = true}));
  const Outcome plain = Train(LlamaLayer(), recipe.get(), [](Layer*) {});
  const Outcome hidden = Train(LlamaLayer(), recipe.get(), [](Layer* layer) {
    WrapAt(layer, {"self_attention", "core_attention"}, [](std::unique_ptr<Layer> child) {
      return std::make_unique<Wrapper>(std::move(child), true);
    });
  });
  EXPECT_NE(hidden.executed, plain.executed);
  for (size_t i = 0; i < plain.steps.size(); ++i)
    EXPECT_TRUE(test::ResultsEqual(hidden.steps[i], plain.steps[i])) << "step " << i;
}

// Recomputation of any child, alone and within a recomputed layer: the same bits.
TEST(WrappedLayer, RecomputationOfAChildIsTheSameBitsAndNests) {
  const Layer::Wrap recompute = [](std::unique_ptr<Layer> child) {
    return std::make_unique<RecomputedLayer>(std::move(child));
  };
  for (const TransformerLayerOptions& options : {LlamaLayer(), GptLayer()}) {
    for (const auto& recipe : Recipes(options.attention_dropout == 0)) {
      const Outcome plain = Train(options, recipe.get(), [](Layer*) {});
      for (const Place& place : kPlaces) {
        SCOPED_TRACE(place.back() + (recipe == nullptr ? "" : ", " + recipe->name()));
        for (const bool nested : {false, true}) {
          const Outcome again = Train(options, recipe.get(), [&](Layer* layer) {
            WrapAt(layer, place, recompute);
            if (nested) WrapAt(layer, {place.front()}, recompute);
          });
          for (size_t i = 0; i < plain.steps.size(); ++i) {
            EXPECT_TRUE(test::ResultsEqual(again.steps[i], plain.steps[i]))
                << "step " << i << (nested ? ", nested" : "");
          }
        }
      }
    }
  }
}

TEST(WrappedLayer, AChildThatIsNotThereIsNamed) {
  auto context = test::NewContext();
  auto layer = Must(TransformerLayer::Create(context.get(), LlamaLayer(), "block"));
  const Status status = layer->WrapChild("mlp", [](std::unique_ptr<Layer> child) { return child; });
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(status.message().find("block: no child 'mlp'; it has: self_attention, layernorm_mlp"),
            std::string::npos)
      << status.message();
}

}  // namespace
}  // namespace te
