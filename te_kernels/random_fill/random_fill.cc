#include "te_kernels/random_fill/random_fill.h"

#include <cmath>

namespace te {

Status ValidateRandomFill(const RandomFillArgs& args) {
  if (args.out.dtype() != DType::kFloat32 && args.out.dtype() != DType::kBFloat16) {
    return InvalidArgument("random fill: out is {}; expected float32 or bfloat16",
                           args.out.ToString());
  }
  if (!args.out.IsDense() || (args.out.elements() != 0 && !args.out.defined())) {
    return InvalidArgument("random fill: out is {}; expected a dense tensor", args.out.ToString());
  }
  switch (args.distribution) {
    case RandomDistribution::kNormal:
      if (!std::isfinite(args.a) || !std::isfinite(args.b) || args.b < 0) {
        return InvalidArgument(
            "random fill: normal of mean {} and standard deviation {}; expected finite numbers, "
            "the "
            "deviation not negative",
            args.a, args.b);
      }
      return OkStatus();
    case RandomDistribution::kUniform:
      if (!std::isfinite(args.a) || !std::isfinite(args.b) || args.a > args.b) {
        return InvalidArgument("random fill: uniform in [{}, {}); expected finite low <= high",
                               args.a, args.b);
      }
      return OkStatus();
  }
  return InvalidArgument("random fill: distribution is {}; expected normal (0) or uniform (1)",
                         static_cast<int>(args.distribution));
}

}  // namespace te
