// The same header as C++17.
#include "te/te.h"

int main() {
  te_fp8_recipe_options recipe;
  te_llama_options llama;
  if (te_fp8_recipe_options_init(&recipe) != TE_STATUS_OK || recipe.struct_size != sizeof(recipe)) {
    return 1;
  }
  if (te_llama_options_init(&llama) != TE_STATUS_OK || llama.struct_size != sizeof(llama)) return 1;
  return te_abi_version() == TE_ABI_VERSION ? 0 : 1;
}
