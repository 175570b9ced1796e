// Layers with and without recomputation: outputs, gradients, scales and histories are the same bit
// for bit, whatever runs between the two runs of the forward pass.
#include "te_core/layers/recomputed_layer.h"

#include <functional>

#include "te_core/layers/layer_norm_linear.h"
#include "te_core/layers/layer_norm_mlp.h"
#include "te_core/layers/linear.h"
#include "te_core/layers/multihead_attention.h"
#include "te_core/layers/testing/layer_harness.h"
#include "te_core/layers/transformer_layer.h"
#include "te_core/quantization/module_recipes.h"
#include "te_kernels/testing/host_tensor.h"

namespace te {
namespace {

using test::Must;
using test::MustOk;
using LayerFactory = std::function<std::unique_ptr<Layer>(Context*)>;

constexpr int64_t kBatch = 2, kSequence = 16, kHidden = 32;

// One layer, plain or recomputed, in a context of its own, and passes of it in flight.
class Subject {
 public:
  Subject(const LayerFactory& make, bool recompute) : context_(test::NewContext(2)) {
    layer_ = make(context_.get());
    test::Randomize(layer_.get(), 5, 0.3);
    if (recompute) layer_ = std::make_unique<RecomputedLayer>(std::move(layer_));
    MustOk(layer_->EnsureGradients());
    pool_ = std::make_unique<SavedPool>(context_->memory());
  }

  struct Pass {
    Tensor input, output, padding;
    SavedPool::Handle slot;
  };

  // Inputs of magnitude `scale`, in a scope of its own.
  Pass Forward(uint64_t seed, double scale, const Recipe* recipe,
               const QuantizationOptions& options = {}) {
    Pass pass;
    const Shape shape = {kBatch, kSequence, kHidden};
    pass.input = test::NewTensor(context_.get(), DType::kFloat32, shape,
                                 test::UniformDoubles(shape.elements(), seed, -scale, scale));
    pass.output = Must(context_->NewZeroTensor(DType::kFloat32, shape));
    std::vector<uint8_t> padding(kBatch * kSequence);
    padding.back() = padding[kSequence - 1] = 1;
    pass.padding = test::NewUInt8(context_.get(), {kBatch, kSequence}, padding);
    pass.slot = Must(pool_->Acquire());
    ForwardArgs args;
    args.input = pass.input.view();
    args.output = pass.output.view();
    if (masked_) args.attention.padding_mask = pass.padding.view();
    if (residual_) args.residual = pass.input.view();
    context_->BeginQuantization(recipe, options);
    MustOk(layer_->Forward(args, &pass.slot->root));
    MustOk(context_->EndQuantization());
    Note(pass.output);
    return pass;
  }
  void Backward(Pass* pass, uint64_t seed, bool accumulate = false) {
    const Shape shape = pass->input.view().shape();
    const Tensor doutput = test::NewTensor(context_.get(), DType::kFloat32, shape,
                                           test::UniformDoubles(shape.elements(), seed));
    const Tensor dinput = Must(context_->NewZeroTensor(DType::kFloat32, shape));
    BackwardArgs args;
    args.doutput = doutput.view();
    args.dinput = dinput.view();
    args.accumulate_gradients = accumulate;
    MustOk(layer_->Backward(args, &pass->slot->root));
    pass->slot.reset();
    Note(dinput);
    for (const Parameter* parameter : layer_->Parameters()) Note(parameter->grad);
  }
  // Three steps, the first of them calibrating; the magnitudes of the inputs make scales move.
  void Train(const Recipe* recipe) {
    for (int step = 0; step < 3; ++step) {
      for (uint32_t micro_batch = 0; micro_batch < 2; ++micro_batch) {
        context_->set_micro_batch(micro_batch);
        const uint64_t seed = static_cast<uint64_t>(step) * 10 + micro_batch;
        Pass pass = Forward(seed, 1 + step, recipe,
                            {.calibrating = step == 0 && recipe != nullptr && recipe->calibrates(),
                             .is_first_microbatch = micro_batch == 0});
        Backward(&pass, seed + 5, micro_batch > 0);
      }
      NoteScaling();
    }
  }
  void NoteScaling() {
    for (const auto& state : Must(context_->delayed_scaling().Export(context_->exec()))) {
      noted_.insert(noted_.end(), state.amax_history.begin(), state.amax_history.end());
      noted_.push_back(state.scale);
    }
  }
  // Padding; the input as the residual.
  void set_arguments(bool masked, bool residual) {
    masked_ = masked;
    residual_ = residual;
  }

  Context* context() { return context_.get(); }
  Layer* layer() { return layer_.get(); }
  SavedPool* pool() { return pool_.get(); }
  // All numbers so far.
  const std::vector<double>& noted() const { return noted_; }

 private:
  void Note(const Tensor& tensor) {
    const std::vector<double> values = test::ToDoubles(tensor.view());
    noted_.insert(noted_.end(), values.begin(), values.end());
  }

  std::unique_ptr<Context> context_;
  std::unique_ptr<Layer> layer_;
  std::unique_ptr<SavedPool> pool_;
  bool masked_ = false, residual_ = false;
  std::vector<double> noted_;
};

TransformerLayerOptions BlockOptions() {
  TransformerLayerOptions options;
  options.hidden_size = kHidden;
  options.ffn_hidden_size = 48;
  options.num_attention_heads = 4;
  options.num_gqa_groups = 2;
  options.self_attn_mask_type = AttentionMaskType::kPaddingCausal;
  options.attn_input_format = AttentionFormat::kBshd;
  return options;
}

LayerFactory Block(const TransformerLayerOptions& options = BlockOptions()) {
  return [options](Context* context) -> std::unique_ptr<Layer> {
    return Must(TransformerLayer::Create(context, options, "block"));
  };
}

std::unique_ptr<Recipe> Delayed(bool fp8_dpa = false) {
  return Must(MakeRecipe(DelayedScalingRecipe{.amax_history_len = 2, .fp8_dpa = fp8_dpa}));
}

std::vector<std::unique_ptr<Recipe>> AllRecipes() {
  std::vector<std::unique_ptr<Recipe>> recipes;
  recipes.push_back(nullptr);
  recipes.push_back(Delayed());
  recipes.push_back(Must(MakeRecipe(Float8CurrentScalingRecipe())));
  recipes.push_back(Must(MakeRecipe(Float8BlockScalingRecipe())));
  recipes.push_back(Must(MakeRecipe(MXFP8BlockScalingRecipe())));
  recipes.push_back(Must(MakeRecipe(NVFP4BlockScalingRecipe())));
  return recipes;
}

void ExpectSameNumbers(const LayerFactory& make, bool masked, bool residual) {
  for (const auto& recipe : AllRecipes()) {
    SCOPED_TRACE(recipe == nullptr ? "none" : recipe->name());
    Subject kept(make, false), recomputed(make, true);
    for (Subject* subject : {&kept, &recomputed}) {
      subject->set_arguments(masked, residual);
      subject->Train(recipe.get());
    }
    EXPECT_TRUE(kept.noted() == recomputed.noted());
    EXPECT_GT(kept.noted().size(), 6u * kBatch * kSequence * kHidden);
  }
}

TEST(RecomputedLayer, ATransformerLayerInEveryFormGivesTheSameNumbers) {
  for (const bool dropout : {false, true}) {
    std::vector<TransformerLayerOptions> forms(4, BlockOptions());
    forms[1].output_layernorm = true;
    forms[2].parallel_attention_mlp = true;
    forms[3].apply_residual_connection_post_layernorm = true;
    for (size_t i = 0; i < forms.size(); ++i) {
      SCOPED_TRACE(i);
      forms[i].hidden_dropout = dropout ? 0.2f : 0;
      forms[i].attention_dropout = dropout ? 0.2f : 0;
      ExpectSameNumbers(Block(forms[i]), true, false);
    }
  }
}

TEST(RecomputedLayer, TheLayersWithAProductGiveTheSameNumbers) {
  ExpectSameNumbers(
      [](Context* context) -> std::unique_ptr<Layer> {
        return Must(
            Linear::Create(context, {.in_features = kHidden, .out_features = kHidden}, "linear"));
      },
      false, true);
  ExpectSameNumbers(
      [](Context* context) -> std::unique_ptr<Layer> {
        return Must(LayerNormLinear::Create(
            context, {.in_features = kHidden, .out_features = kHidden}, "norm_linear"));
      },
      false, true);
  ExpectSameNumbers(
      [](Context* context) -> std::unique_ptr<Layer> {
        return Must(
            LayerNormMLP::Create(context, {.hidden_size = kHidden, .ffn_hidden_size = 48}, "mlp"));
      },
      false, true);
  ExpectSameNumbers(
      [](Context* context) -> std::unique_ptr<Layer> {
        MultiheadAttentionOptions options;
        options.hidden_size = kHidden;
        options.num_attention_heads = 4;
        options.num_gqa_groups = 2;
        options.attn_mask_type = AttentionMaskType::kPadding;
        options.qkv_format = AttentionFormat::kBshd;
        return Must(MultiheadAttention::Create(context, options, "attention"));
      },
      true, true);
}

TEST(RecomputedLayer, Fp8AttentionGivesTheSameNumbers) {
  TransformerLayerOptions options = BlockOptions();
  options.hidden_dropout = 0.2f;
  options.attention_dropout = 0;
  const auto recipe = Delayed(true), without = Delayed(false);
  Subject kept(Block(options), false), recomputed(Block(options), true),
      plain(Block(options), false);
  kept.Train(recipe.get());
  recomputed.Train(recipe.get());
  EXPECT_TRUE(kept.noted() == recomputed.noted());
  plain.Train(without.get());
  EXPECT_FALSE(kept.noted() == plain.noted()) << "attention was not quantized";
}

// The twin of all above: a second run without the first one's scales gives other gradients.
TEST(RecomputedLayer, TheScalesOfLaterWouldGiveOtherNumbers) {
  const auto recipe = Delayed();
  TransformerLayerOptions options = BlockOptions();
  options.hidden_dropout = options.attention_dropout = 0;
  std::vector<double> gradients[2];
  for (const bool again : {false, true}) {
    Subject subject(Block(options), false);
    subject.Train(recipe.get());
    Subject::Pass pass = subject.Forward(40, 9, recipe.get());
    if (again) {  // the same input; the weights' codes stay
      pass.slot.reset();
      pass = subject.Forward(40, 9, recipe.get(), {.is_first_microbatch = false});
    }
    const size_t before = subject.noted().size();
    subject.Backward(&pass, 41);
    gradients[again].assign(subject.noted().begin() + static_cast<std::ptrdiff_t>(before),
                            subject.noted().end());
  }
  ASSERT_EQ(gradients[0].size(), gradients[1].size());
  EXPECT_FALSE(gradients[0] == gradients[1]);
}

// Two passes in flight: the second one moves scales, casts the weights anew, and, as an evaluation
// by another recipe, may leave them in another format.
TEST(RecomputedLayer, PassesInFlightDoNotDisturbEachOther) {
  const auto recipes = AllRecipes();
  for (const auto& recipe : recipes) {
    if (recipe == nullptr) continue;
    for (const bool evaluate : {false, true}) {
      SCOPED_TRACE(recipe->name() + (evaluate ? ", evaluation between" : ""));
      TransformerLayerOptions options = BlockOptions();
      Subject kept(Block(options), false), recomputed(Block(options), true);
      for (Subject* subject : {&kept, &recomputed}) {
        subject->Train(recipe.get());
        test::Randomize(subject->layer(), 6, 0.9);  // the weights' scales move, too
        subject->context()->set_micro_batch(0);
        Subject::Pass first = subject->Forward(50, 8, recipe.get());
        subject->context()->set_micro_batch(1);
        Subject::Pass second = subject->Forward(51, 32, recipe.get());
        if (evaluate) {
          const bool current = recipe->name() == recipes[2]->name();
          subject->Forward(52, 1, recipes[current ? 3 : 2].get(), {.training = false});
        }
        // The backward passes run in a scope of somebody else's.
        const QuantizationOptions other = {.training = false, .is_first_microbatch = true};
        subject->context()->BeginQuantization(nullptr, other);
        subject->Backward(&first, 53);
        subject->Backward(&second, 54, true);
        MustOk(subject->context()->EndQuantization());
        subject->NoteScaling();
      }
      EXPECT_TRUE(kept.noted() == recomputed.noted());
    }
  }
}

// A scale that nobody has kept cannot be guessed.
TEST(RecomputedLayer, AReusedWeightThatWasCastAnewIsRefusedByName) {
  const auto recipe = Delayed();
  Subject subject(Block(), true);
  subject.Train(recipe.get());
  Subject::Pass first = subject.Forward(50, 8, recipe.get());
  Subject::Pass reusing = subject.Forward(51, 32, recipe.get(), {.is_first_microbatch = false});
  Subject::Pass anew = subject.Forward(52, 64, recipe.get());
  const Tensor dinput =
      Must(subject.context()->NewTensor(DType::kFloat32, {kBatch, kSequence, kHidden}));
  BackwardArgs args;
  args.doutput = reusing.input.view();
  args.dinput = dinput.view();
  const Status status = subject.layer()->BackwardInput(args, &reusing.slot->root);
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("block.self_attention.layernorm_qkv: recomputation after"),
            std::string::npos)
      << status.message();
  EXPECT_EQ(subject.context()->repeated(), nullptr);
  subject.Backward(&anew, 60);
  subject.Backward(&first, 61);
}

TEST(RecomputedLayer, OnlyTheScalesStayInMemory) {
  Subject kept(Block(), false), recomputed(Block(), true);
  const auto recipe = Delayed();
  for (const Recipe* r :
       {static_cast<const Recipe*>(nullptr), static_cast<const Recipe*>(recipe.get())}) {
    const Subject::Pass full = kept.Forward(1, 1, r), input_alone = recomputed.Forward(1, 1, r);
    EXPECT_GT(full.slot->arena.Here().used, 8u * kBatch * kSequence * kHidden * sizeof(float));
    EXPECT_EQ(input_alone.slot->arena.Here().used, r == nullptr ? 0u : 256u);
  }
}

TEST(RecomputedLayer, MisuseIsNamed) {
  Subject subject(Block(), true);
  Subject::Pass pass = subject.Forward(1, 1, nullptr);
  BackwardArgs args;
  args.doutput = pass.input.view();
  EXPECT_EQ(subject.layer()->BackwardWeight(args, &pass.slot->root).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(subject.layer()->BackwardInput(args, nullptr).code(), StatusCode::kFailedPrecondition);
}

TEST(RecomputedLayer, InferenceParametersAndDescriptionAreTheLayers) {
  Subject kept(Block(), false), recomputed(Block(), true);
  EXPECT_EQ(kept.layer()->Describe(0), recomputed.layer()->Describe(0));
  EXPECT_EQ(kept.layer()->name(), recomputed.layer()->name());
  std::vector<std::string> names[2];
  for (const NamedParameter& p : kept.layer()->NamedParameters()) names[0].push_back(p.name);
  for (const NamedParameter& p : recomputed.layer()->NamedParameters()) names[1].push_back(p.name);
  EXPECT_EQ(names[0], names[1]);
  const Shape shape = {kBatch, kSequence, kHidden};
  const auto infer = [&](Subject* subject) {
    const Tensor input = test::NewTensor(subject->context(), DType::kFloat32, shape,
                                         test::UniformDoubles(shape.elements(), 3));
    test::LayerRun run = {.layer = subject->layer(), .output_shape = shape};
    run.forward.input = input.view();
    return test::Infer(run);
  };
  EXPECT_TRUE(test::ResultsEqual(infer(&kept), infer(&recomputed)));
}

}  // namespace
}  // namespace te
