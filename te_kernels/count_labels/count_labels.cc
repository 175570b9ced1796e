#include "te_kernels/count_labels/count_labels.h"

namespace te {

Status ValidateCountLabels(const CountLabelsArgs& args) {
  const ConstTensorView& labels = args.labels;
  if (labels.rank() != 1 || labels.dtype() != DType::kInt32 ||
      (labels.elements() != 0 && (!labels.defined() || !labels.IsDense()))) {
    return InvalidArgument("count_labels: labels is {}; expected dense int32 of rank 1",
                           labels.ToString());
  }
  if (args.count == nullptr)
    return InvalidArgument("count_labels: count is null; expected its address");
  return OkStatus();
}

}  // namespace te
