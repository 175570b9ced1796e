// The same header as C++17.
#include "te/te.h"

int main() { return te_abi_version() == TE_ABI_VERSION ? 0 : 1; }
