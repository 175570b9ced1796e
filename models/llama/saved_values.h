// Weights that are no numbers any more must not replace a checkpoint in silence.
#pragma once

#include <span>
#include <string>
#include <utility>

#include "models/checkpoint/save.h"
#include "te_core/context.h"

namespace te {

// A tensor that is saved beside the weights, in its own dtype; device memory.
using NamedValue = std::pair<std::string, ConstTensorView>;

// kFailedPrecondition when a value of `tensors`, converted to the type that it is saved in, or of
// `others` is NaN or infinite: the message names tensors and counts, says whether the values were
// so in `source` (what `tensors` were read from; may be null), became so in training, or are too
// large for that type, and what to do. One pass over the values where they lie, at the speed of
// memory; the host waits once. Bytes that SaveCheckpoint takes over from a file count as they are
// there.
Status CheckSavedValues(Context* context, std::span<const SaveTensor> tensors,
                        std::span<const NamedValue> others, const CheckpointReader* source);

}  // namespace te
