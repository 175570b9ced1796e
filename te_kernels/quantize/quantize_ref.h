#pragma once

#include "te_kernels/quantize/quantize.h"
