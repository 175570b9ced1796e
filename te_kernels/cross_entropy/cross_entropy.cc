#include "te_kernels/cross_entropy/cross_entropy.h"

#include "te_kernels/base/check.h"

namespace te {

Status ValidateCrossEntropy(const CrossEntropyArgs& args) {
  constexpr const char* kOp = "cross_entropy";
  TE_RETURN_IF_ERROR(CheckFloats(kOp, "logits", args.logits, 2));
  const Shape rows = {args.logits.dim(0)};
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "labels", args.labels, DType::kInt32, rows));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "loss", args.loss, DType::kFloat32, rows));
  if (args.dlogits.defined()) {
    TE_RETURN_IF_ERROR(
        CheckTensor(kOp, "dlogits", args.dlogits, args.logits.dtype(), args.logits.shape()));
  }
  if (!(args.label_smoothing >= 0 && args.label_smoothing < 1)) {
    return InvalidArgument("{}: label_smoothing is {}; expected [0, 1)", kOp, args.label_smoothing);
  }
  return OkStatus();
}

}  // namespace te
