/* The header alone must compile as C11 with every warning an error; so must a use of each of its
 * types. */
#include "te/te.h"

_Static_assert(sizeof(te_status) == 4, "te_status is int32_t");
_Static_assert(sizeof(te_dtype) == 4, "te_dtype is int32_t");
_Static_assert(offsetof(te_context_options, struct_size) == 0, "struct_size comes first");
_Static_assert(offsetof(te_layer_options, struct_size) == 0, "struct_size comes first");
_Static_assert(offsetof(te_forward_args, struct_size) == 0, "struct_size comes first");
_Static_assert(offsetof(te_backward_args, struct_size) == 0, "struct_size comes first");

_Static_assert(offsetof(te_fp8_recipe_options, struct_size) == 0, "struct_size comes first");
_Static_assert(sizeof(TE_FP8_RECIPE_DEFAULT) == 4, "the default of int32_t parameters");

int main(void) {
  te_fp8_recipe_options recipe;
  te_llama_options llama;
  if (te_fp8_recipe_options_init(&recipe) != TE_STATUS_OK || recipe.struct_size != sizeof(recipe)) {
    return 1;
  }
  if (te_llama_options_init(&llama) != TE_STATUS_OK || llama.struct_size != sizeof(llama)) return 1;
  return te_abi_version() == TE_ABI_VERSION ? 0 : 1;
}
