// te_optimizer_options -> te_core's.
#pragma once

#include "te/te.h"
#include "te_core/optimizer/adamw_optimizer.h"

namespace te::c_api {

te_optimizer_options DefaultOptimizerOptions();
// NULL leaves *out as it is.
Status ReadOptimizerOptions(const te_optimizer_options* options, const char* argument,
                            AdamWOptions* out);

}  // namespace te::c_api
