#include "te_kernels/count_labels/count_labels.h"

namespace te {

// One pass over T integers: too little work to share among threads.
Status CountLabelsCpu(const Exec&, const CountLabelsArgs& args) {
  TE_RETURN_IF_ERROR(ValidateCountLabels(args));
  const int32_t* labels = args.labels.as<int32_t>();
  int64_t count = 0;
  for (int64_t t = 0; t < args.labels.elements(); ++t) count += labels[t] != args.ignore_index;
  *args.count += count;
  return OkStatus();
}

}  // namespace te
