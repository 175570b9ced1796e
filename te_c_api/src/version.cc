#include "te/te.h"

uint32_t te_abi_version(void) { return TE_ABI_VERSION; }

const char* te_version_string(void) { return "0.1.0"; }
