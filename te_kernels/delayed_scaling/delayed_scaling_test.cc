#include "te_kernels/delayed_scaling/delayed_scaling.h"

#include <gtest/gtest.h>
