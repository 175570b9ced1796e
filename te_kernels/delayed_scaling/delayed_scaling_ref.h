#pragma once

#include "te_kernels/delayed_scaling/delayed_scaling.h"
