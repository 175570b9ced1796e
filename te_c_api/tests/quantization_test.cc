// Quantization scopes, rules by module name, and how long recipes live.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "te/te.h"
#include "te_c_api/tests/fp8_program.h"

namespace te_test {
namespace {

// ---- Scopes ----

// A cast to E4M3 errs by up to 2^-4 of a value, with a root mean square of some 0.026; products of
// two such values by 0.037, and sums of independent ones as well; E5M2 doubles one of the two.
// E2M1 has steps of up to 1/3 of a value.
double LinearBound(int32_t kind) { return kind == TE_FP8_RECIPE_NVFP4 ? 0.25 : 0.08; }

TEST(Quantization, ACalibratedLinearIsNearTheOneInItsOwnDtype) {
  for (int32_t kind = TE_FP8_RECIPE_DELAYED; kind <= TE_FP8_RECIPE_NVFP4; ++kind) {
    SCOPED_TRACE(kKindNames[kind]);
    Program program;
    const Results plain = program.Step(nullptr);
    te_fp8_recipe* recipe = program.Recipe(kind);
    EXPECT_TRUE(program.Step(recipe, Program::Scope(true)) == plain) << "calibrating quantizes";
    const Results quantized = program.Step(recipe);
    ExpectQuantized(quantized.y, plain.y, LinearBound(kind));
    ExpectQuantized(quantized.dx, plain.dx, LinearBound(kind));
    ExpectQuantized(quantized.dweight, plain.dweight, LinearBound(kind));
    EXPECT_TRUE(program.Step(nullptr) == plain) << "outside the scope";
  }
}

TEST(Quantization, ACalibratedTransformerLayerIsNearTheOneInItsOwnDtype) {
  for (int32_t kind = TE_FP8_RECIPE_DELAYED; kind <= TE_FP8_RECIPE_MXFP8; ++kind) {
    SCOPED_TRACE(kKindNames[kind]);
    Program program(TE_LAYER_TRANSFORMER_LAYER, "layer");
    const Results plain = program.Step(nullptr);
    te_fp8_recipe* recipe = program.Recipe(kind);
    EXPECT_TRUE(program.Step(recipe, Program::Scope(true)) == plain) << "calibrating quantizes";
    const Results quantized = program.Step(recipe);
    // Four quantized products behind each other forward (0.037 each), as many backward (with E5M2
    // 0.059), which go by activations that are products of two forward ones: independent errors
    // add in squares, 4 * 0.059^2 + 2 * 4 * 0.037^2 = 0.157^2.
    ExpectQuantized(quantized.y, plain.y, 0.157);
    ExpectQuantized(quantized.dx, plain.dx, 0.157);
    ExpectQuantized(quantized.dweight, plain.dweight, 0.157);
  }
}

// Scale 1 casts inputs of 1e-3 to E4M3's smallest steps (2^-9): calibration is what makes the
// first quantized step good.
TEST(Quantization, CalibrationIsWhatMakesTheFirstScales) {
  Program calibrated, raw;
  for (Program* program : {&calibrated, &raw}) program->SetInput(1e-3f);
  te_fp8_recipe* recipe = calibrated.Recipe(TE_FP8_RECIPE_DELAYED);
  const Results plain = calibrated.Step(recipe, Program::Scope(true));
  EXPECT_LT(Error(calibrated.Step(recipe).y, plain.y), LinearBound(TE_FP8_RECIPE_DELAYED));
  EXPECT_GT(Error(raw.Step(raw.Recipe(TE_FP8_RECIPE_DELAYED)).y, plain.y),
            2 * LinearBound(TE_FP8_RECIPE_DELAYED));
}

TEST(Quantization, ContradictoryScopesAreRefused) {
  Program program;
  te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_DELAYED);
  const te_quantization_options evaluation = Program::Scope(true, true, false);
  ExpectError(te_quantization_begin(program.context(), recipe, &evaluation),
              TE_STATUS_INVALID_ARGUMENT, "options->calibrating is 1 and options->training is 0");
  te_saved* saved = nullptr;
  program.Begin(recipe, Program::Scope(false, true, false));
  ExpectError(program.TryForward(&saved), TE_STATUS_FAILED_PRECONDITION, "saved is not NULL");
  EXPECT_EQ(saved, nullptr);
  program.Begin(program.Recipe(TE_FP8_RECIPE_NONE), Program::Scope(false, true, false));
  EXPECT_EQ(program.TryForward(&saved), TE_STATUS_OK) << te_last_error_message();
  te_saved_destroy(saved);
  program.End();
  program.End();
  te_quantization_options scope = Program::Scope();
  scope.is_first_microbatch = 2;
  ExpectError(te_quantization_begin(program.context(), recipe, &scope), TE_STATUS_INVALID_ARGUMENT,
              "is_first_microbatch is 2");
  EXPECT_EQ(te_quantization_end(program.context()), TE_STATUS_FAILED_PRECONDITION)
      << "a refused scope has not begun";
}

TEST(Quantization, TheInnermostScopeCountsAndScalesMoveAtTheOutermostEnd) {
  Program nested, flat, separate;
  const auto forward = [](Program* program) {
    te_saved* saved = nullptr;
    Values y = program->Forward(&saved);
    te_saved_destroy(saved);
    return y;
  };
  const auto begin = [](Program* program, int32_t kind) {
    program->Begin(program->Recipe(kind), Program::Scope());
  };
  for (Program* program : {&nested, &flat, &separate}) program->SetInput(1e-3f);
  const Values plain = forward(&nested);
  begin(&nested, TE_FP8_RECIPE_DELAYED);
  begin(&nested, TE_FP8_RECIPE_DELAYED);
  const Values first = forward(&nested);
  nested.End();
  begin(&nested, TE_FP8_RECIPE_NONE);
  EXPECT_EQ(forward(&nested), plain);
  nested.End();
  EXPECT_NE(first, plain);
  EXPECT_EQ(forward(&nested), first) << "an inner scope's end has moved a scale";
  nested.End();
  EXPECT_EQ(forward(&nested), plain);

  begin(&flat, TE_FP8_RECIPE_DELAYED);
  EXPECT_EQ(forward(&flat), first);
  EXPECT_EQ(forward(&flat), first);
  flat.End();
  begin(&flat, TE_FP8_RECIPE_DELAYED);
  const Values second = forward(&flat);
  EXPECT_NE(second, first) << "the outermost scope's end has moved no scale";
  flat.End();
  begin(&nested, TE_FP8_RECIPE_DELAYED);
  EXPECT_EQ(forward(&nested), second);
  nested.End();
}

TEST(Quantization, LaterMicroBatchesReuseTheWeightsOfTheFirst) {
  Values y[2];
  for (const bool first : {false, true}) {
    Program program;
    te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_DELAYED);
    program.Step(recipe);  // the weight is cast with scale 1; then its scale moves
    y[first] = program.Step(recipe, Program::Scope(false, first)).y;
  }
  EXPECT_NE(y[0], y[1]);
}

TEST(Quantization, EvaluationLeavesNoTrace) {
  enum { kNothing, kEvaluation, kTraining };
  const auto run = [](int between) {
    Program program;
    te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_DELAYED);
    program.Step(recipe, Program::Scope(true));
    program.SetInput(7);
    if (between == kEvaluation) {
      program.Evaluate(recipe);
      program.Begin(recipe, Program::Scope());
      program.Forward(nullptr);  // inference in a training scope: no trace of its input, either
      program.End();
    }
    if (between == kTraining) program.Step(recipe);
    program.SetInput(1);
    program.Step(recipe);
    return program.Step(recipe);
  };
  const Results alone = run(kNothing);
  EXPECT_TRUE(run(kEvaluation) == alone);
  EXPECT_FALSE(run(kTraining) == alone);
}

TEST(Quantization, TwoContextsShareNothing) {
  const Results alone = ThirdStep(RecipeOptions(TE_FP8_RECIPE_DELAYED));
  Program a, b;
  a.SpreadWeights();
  te_fp8_recipe* recipe = a.Recipe(TE_FP8_RECIPE_DELAYED);
  const te_quantization_options scope = Program::Scope();
  ExpectError(te_quantization_begin(b.context(), recipe, &scope), TE_STATUS_INVALID_ARGUMENT,
              "recipe belongs to another context");
  te_fp8_recipe* other = b.Recipe(TE_FP8_RECIPE_DELAYED);
  b.Begin(other, scope);
  b.SetInput(300);
  a.SetInput(5);
  a.Step(recipe, Program::Scope(true));
  b.Forward(nullptr);
  b.End();
  a.SetInput(1);
  a.Step(recipe);
  b.Step(other);
  EXPECT_TRUE(a.Step(recipe) == alone);

  Results results[2];
  std::vector<std::thread> threads;
  for (Results& result : results) {
    threads.emplace_back([&result] { result = ThirdStep(RecipeOptions(TE_FP8_RECIPE_DELAYED)); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Results& result : results) EXPECT_TRUE(result == alone);
}

TEST(Quantization, ARepeatedStepAllocatesNothing) {
  Program program;
  te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_DELAYED);
  int64_t before = 0, after = 0;
  for (int step = 0; step < 5; ++step) {
    if (step == 3) Must(te_context_memory(program.context(), nullptr, nullptr, &before));
    program.Step(recipe, Program::Scope(step == 0));
  }
  Must(te_context_memory(program.context(), nullptr, nullptr, &after));
  EXPECT_EQ(after, before);
}

// ---- Rules ----

TEST(Rules, ChooseByNameSeparatelyForTrainingAndEvaluationAndTheFirstMatchWins) {
  Program program;
  const Results plain = program.Step(nullptr);
  const Values plain_evaluation = program.Evaluate(nullptr);
  const Results current = program.Step(program.Recipe(TE_FP8_RECIPE_CURRENT));
  const Values block_evaluation = program.Evaluate(program.Recipe(TE_FP8_RECIPE_BLOCK));
  ASSERT_FALSE(current == plain);
  ASSERT_NE(block_evaluation, plain_evaluation);

  te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_NONE);
  EXPECT_TRUE(program.Step(recipe) == plain);
  te_fp8_recipe* rules[2] = {program.NewRecipe(RecipeOptions(TE_FP8_RECIPE_CURRENT)),
                             program.NewRecipe(RecipeOptions(TE_FP8_RECIPE_BLOCK))};
  Must(te_fp8_recipe_add_rule(recipe, "*.fc2", rules[1], rules[1]));  // another module's
  EXPECT_TRUE(program.Step(recipe) == plain);
  Must(te_fp8_recipe_add_rule(recipe, "*.fc1", rules[0], nullptr));
  Must(te_fp8_recipe_add_rule(recipe, "model.*", nullptr, rules[1]));  // too late for fc1
  for (te_fp8_recipe* rule : rules) te_fp8_recipe_destroy(rule);
  EXPECT_TRUE(program.Step(recipe) == current);
  EXPECT_EQ(program.Evaluate(recipe), plain_evaluation);

  te_fp8_recipe* excluded = program.Recipe(TE_FP8_RECIPE_CURRENT);
  te_fp8_recipe* block = program.Recipe(TE_FP8_RECIPE_BLOCK);
  Must(te_fp8_recipe_add_rule(excluded, "model.fc?", nullptr, block));
  EXPECT_TRUE(program.Step(excluded) == plain);
  EXPECT_EQ(program.Evaluate(excluded), block_evaluation);
}

TEST(Rules, OfALayersModules) {
  const auto run = [](const char* pattern) {
    Program program(TE_LAYER_TRANSFORMER_LAYER, "layer");
    te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_CURRENT);
    if (pattern != nullptr) Must(te_fp8_recipe_add_rule(recipe, pattern, nullptr, nullptr));
    return program.Step(recipe);
  };
  Program program(TE_LAYER_TRANSFORMER_LAYER, "layer");
  const Results plain = program.Step(nullptr), all = run(nullptr);
  EXPECT_TRUE(run("layer.*") == plain);
  EXPECT_TRUE(run("fc2") == all) << "the whole name has to match";
  for (const char* pattern : {"layer.layernorm_mlp.fc2", "layer.layernorm_mlp.fc1",
                              "layer.self_attention.proj", "*.layernorm_qkv"}) {
    const Results without = run(pattern);
    EXPECT_FALSE(without == all) << pattern;
    EXPECT_FALSE(without == plain) << pattern;
  }
}

TEST(Rules, AScopeThatHasBegunDoesNotSeeANewOne) {
  Program program;
  const Results plain = program.Step(nullptr);
  te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_CURRENT);
  const Results current = program.Step(recipe);
  Results inside;
  te_saved* saved = nullptr;
  program.Begin(recipe, Program::Scope());
  Must(te_fp8_recipe_add_rule(recipe, "*", nullptr, nullptr));
  inside.y = program.Forward(&saved);
  program.End();
  program.Backward(saved, &inside);
  EXPECT_TRUE(inside == current);
  EXPECT_TRUE(program.Step(recipe) == plain);
}

TEST(Rules, AreCheckedByName) {
  Program program, other;
  te_fp8_recipe* recipe = program.Recipe(TE_FP8_RECIPE_CURRENT);
  te_fp8_recipe* foreign = other.Recipe(TE_FP8_RECIPE_CURRENT);
  const Results before = program.Step(recipe);
  ExpectError(te_fp8_recipe_add_rule(nullptr, "*", nullptr, nullptr), TE_STATUS_INVALID_ARGUMENT,
              "recipe is NULL");
  ExpectError(te_fp8_recipe_add_rule(recipe, nullptr, nullptr, nullptr), TE_STATUS_INVALID_ARGUMENT,
              "pattern is NULL");
  ExpectError(te_fp8_recipe_add_rule(recipe, "", nullptr, nullptr), TE_STATUS_INVALID_ARGUMENT,
              "pattern is ''");
  ExpectError(te_fp8_recipe_add_rule(recipe, "*", foreign, nullptr), TE_STATUS_INVALID_ARGUMENT,
              "training_recipe belongs to another context");
  ExpectError(te_fp8_recipe_add_rule(recipe, "*", nullptr, foreign), TE_STATUS_INVALID_ARGUMENT,
              "evaluation_recipe belongs to another context");
  ExpectError(te_fp8_recipe_add_rule(recipe, "*",
                                     reinterpret_cast<te_fp8_recipe*>(program.context()), nullptr),
              TE_STATUS_INVALID_ARGUMENT, "training_recipe is no te_fp8_recipe");
  EXPECT_TRUE(program.Step(recipe) == before) << "a refused rule has been added";
}

// ---- Lifetime ----

TEST(Quantization, ARecipeMayBeDestroyedBeforeTheScopeEndsAndTheBackwardPassRuns) {
  Program kept_program;
  te_fp8_recipe* kept = kept_program.Recipe(TE_FP8_RECIPE_NONE);
  Must(
      te_fp8_recipe_add_rule(kept, "model.*", kept_program.Recipe(TE_FP8_RECIPE_CURRENT), nullptr));
  const Results want = kept_program.Step(kept);

  Program program;
  te_fp8_recipe* recipe = program.NewRecipe(RecipeOptions(TE_FP8_RECIPE_NONE));
  te_fp8_recipe* rule = program.NewRecipe(RecipeOptions(TE_FP8_RECIPE_CURRENT));
  Must(te_fp8_recipe_add_rule(recipe, "model.*", rule, nullptr));
  te_fp8_recipe_destroy(rule);
  Results got;
  te_saved* saved = nullptr;
  program.Begin(recipe, Program::Scope());
  te_fp8_recipe_destroy(recipe);
  got.y = program.Forward(&saved);
  program.End();
  // Memory of the recipe's size is taken again: a backward pass that reads a freed one reads this.
  std::vector<std::unique_ptr<unsigned char[]>> others;
  for (size_t size = 16; size <= 512; size += 8) {
    others.push_back(std::make_unique<unsigned char[]>(size));
    std::memset(others.back().get(), 0, size);
  }
  program.Backward(saved, &got);
  EXPECT_TRUE(got == want);
}

}  // namespace
}  // namespace te_test
