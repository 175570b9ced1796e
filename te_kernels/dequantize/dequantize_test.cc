#include "te_kernels/dequantize/dequantize.h"

#include <gtest/gtest.h>
