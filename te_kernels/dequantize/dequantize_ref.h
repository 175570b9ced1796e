#pragma once

#include "te_kernels/dequantize/dequantize.h"
