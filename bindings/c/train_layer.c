/* Trains one transformer layer through the C ABI: it learns to give back its input, shifted by one
 * position.
 *
 *   cc -std=c11 train_layer.c -lte -lm && ./a.out [--fp8]
 *
 * Prints the loss as it falls; exit status 1 when it does not. --fp8: with the layer's matrix
 * products in FP8, after one step that only measures its tensors.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "te/te.h"

enum { kBatch = 4, kSequence = 16, kHidden = 64, kSteps = 60 };

/* Every call of te returns a status: look at each. */
static void check(te_status status, const char* what) {
  if (status == TE_STATUS_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, te_status_name(status), te_last_error_message());
  exit(2);
}
#define CHECK(call) check((call), #call)

/* Uniform in [-1, 1); any generator does. */
static float next_random(uint32_t* state) {
  *state = *state * 1664525u + 1013904223u;
  return (float)(*state >> 8) * (2.0f / 16777216.0f) - 1.0f;
}

int main(int argc, char** argv) {
  const int fp8 = argc == 2 && strcmp(argv[1], "--fp8") == 0;
  if (argc > 1 && !fp8) {
    fprintf(stderr, "usage: %s [--fp8]\n", argv[0]);
    return 2;
  }
  te_context_options context_options;
  CHECK(te_context_options_init(&context_options));
  context_options.seed = 1;
  te_context* context = NULL;
  CHECK(te_context_create(&context_options, &context));

  te_layer_options options;
  CHECK(te_layer_options_init(&options));
  options.kind = TE_LAYER_TRANSFORMER_LAYER;
  options.hidden_size = kHidden;
  options.ffn_hidden_size = 2 * kHidden;
  options.num_attention_heads = 4;
  options.num_gqa_groups = 2;
  options.normalization = TE_NORMALIZATION_RMSNORM;
  options.activation = TE_ACTIVATION_SWIGLU;
  options.attn_input_format = TE_FORMAT_BSHD;
  options.bias = 0;
  options.hidden_dropout = 0;
  options.attention_dropout = 0;
  te_layer* layer = NULL;
  CHECK(te_layer_create(context, &options, &layer));
  const char* description = NULL;
  CHECK(te_layer_describe(layer, &description));
  puts(description);

  te_optimizer_options optimizer_options;
  CHECK(te_optimizer_options_init(&optimizer_options));
  te_optimizer* optimizer = NULL;
  CHECK(te_optimizer_create(layer, &optimizer_options, &optimizer));

  /* Delayed scaling: a tensor's scale comes from the largest values of past steps. */
  te_fp8_recipe_options recipe_options;
  CHECK(te_fp8_recipe_options_init(&recipe_options));
  recipe_options.kind = fp8 ? TE_FP8_RECIPE_DELAYED : TE_FP8_RECIPE_NONE;
  te_fp8_recipe* recipe = NULL;
  CHECK(te_fp8_recipe_create(context, &recipe_options, &recipe));

  const int64_t shape[3] = {kBatch, kSequence, kHidden};
  enum { kElements = kBatch * kSequence * kHidden };
  static float x[kElements], y[kElements], dy[kElements];
  te_tensor *input = NULL, *output = NULL, *doutput = NULL;
  CHECK(te_tensor_borrow(context, TE_DTYPE_FLOAT32, 3, shape, NULL, x, &input));
  CHECK(te_tensor_borrow(context, TE_DTYPE_FLOAT32, 3, shape, NULL, y, &output));
  CHECK(te_tensor_borrow(context, TE_DTYPE_FLOAT32, 3, shape, NULL, dy, &doutput));

  uint32_t random = 12345;
  for (int i = 0; i < kElements; ++i) x[i] = next_random(&random);
  double first_loss = 0, loss = 0;
  for (int step = 0; step < kSteps; ++step) {
    te_forward_args forward;
    CHECK(te_forward_args_init(&forward));
    forward.input = input;
    forward.output = output;
    /* The first step computes in float32 and fills the histories: scales are good before they are
     * used. The backward pass goes by the scope of its forward pass. */
    te_quantization_options scope;
    CHECK(te_quantization_options_init(&scope));
    scope.calibrating = fp8 && step == 0;
    te_saved* saved = NULL;
    CHECK(te_quantization_begin(context, recipe, &scope));
    CHECK(te_forward(layer, &forward, &saved));
    CHECK(te_quantization_end(context));

    /* loss = mean over the elements of (y[b, s] - x[b, s - 1])^2 / 2, so dy is the difference; the
     * count divides in the optimizer. */
    loss = 0;
    int64_t count = 0;
    for (int b = 0; b < kBatch; ++b) {
      for (int s = 0; s < kSequence; ++s) {
        for (int h = 0; h < kHidden; ++h) {
          const int i = (b * kSequence + s) * kHidden + h;
          dy[i] = s == 0 ? 0 : y[i] - x[i - kHidden];
          loss += 0.5 * dy[i] * dy[i];
          count += s != 0;
        }
      }
    }
    loss /= (double)count;
    if (step == 0) first_loss = loss;

    te_backward_args backward;
    CHECK(te_backward_args_init(&backward));
    backward.doutput = doutput;
    CHECK(te_backward(layer, saved, &backward));
    te_saved_destroy(saved);

    te_optimizer_step_args update;
    CHECK(te_optimizer_step_args_init(&update));
    update.learning_rate = 1e-2;
    update.gradient_divisor = (double)count;
    double grad_norm = 0;
    CHECK(te_optimizer_step(optimizer, &update, &grad_norm));
    if (step % 10 == 0 || step == kSteps - 1)
      printf("step %2d  loss %.5f  gradient norm %.5f\n", step, loss, grad_norm);
  }

  te_tensor_destroy(input);
  te_tensor_destroy(output);
  te_tensor_destroy(doutput);
  te_fp8_recipe_destroy(recipe);
  te_optimizer_destroy(optimizer);
  te_layer_destroy(layer);
  te_context_destroy(context);
  return loss < 0.5 * first_loss ? 0 : 1;
}
