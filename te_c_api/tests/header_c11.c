/* The header alone must compile as C11 with every warning an error; so must a use of each of its
 * types. */
#include "te/te.h"

_Static_assert(sizeof(te_status) == 4, "te_status is int32_t");
_Static_assert(sizeof(te_dtype) == 4, "te_dtype is int32_t");
_Static_assert(offsetof(te_context_options, struct_size) == 0, "struct_size comes first");
_Static_assert(offsetof(te_layer_options, struct_size) == 0, "struct_size comes first");
_Static_assert(offsetof(te_forward_args, struct_size) == 0, "struct_size comes first");
_Static_assert(offsetof(te_backward_args, struct_size) == 0, "struct_size comes first");

int main(void) { return te_abi_version() == TE_ABI_VERSION ? 0 : 1; }
