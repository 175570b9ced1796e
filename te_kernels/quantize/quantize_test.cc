#include "te_kernels/quantize/quantize.h"

#include <gtest/gtest.h>
