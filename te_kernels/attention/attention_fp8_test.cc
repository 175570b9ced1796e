#include "te_kernels/attention/attention_fp8.h"

namespace te {}
