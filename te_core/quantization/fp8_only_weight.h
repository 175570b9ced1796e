// Weights that exist in FP8 alone, no copy in a wider dtype beside them (QuantizedInit makes them):
// E4M3 codes rowwise and one float32, scale_inv. A value is code * scale_inv.
//
// Two scales. Codes are read with scale_inv, that of the moment when they were written. The slot's
// scale is that of the next codes: the optimizer's update reads with the one and writes with the
// other, leaves the amax of the new values, before the cast, in the slot's history, and the end of
// the next scope in training derives the scale of the update after it. So the scale is one update
// late: a value that has grown beyond 448 / scale is clipped until then.
//
// A writer of other values holds them densely for as long as it writes:
//   BeginWrite(context, &p);  write p.value;  EndWrite(context, &p);
// Either is right for a parameter of any kind. Thread-compatible.
#pragma once

#include "te_core/context.h"
#include "te_core/parameter.h"

namespace te {

// Of FP8 alone: p->value becomes a dense tensor that holds the values of the codes, or nothing yet
// when none were written. Else nothing happens.
Status BeginWrite(Context* context, Parameter* p);
// To be called after a write; bumps the version. Of FP8 alone: casts p->value, to nearest, and
// drops it. The scale is (448 * 2^-margin) / amax of the new values; but the first write after the
// slot took over a saved state keeps the saved scale, so that codes that were saved come back as
// they were: unless the largest value clips under it, or it is 16 times smaller than the one above
// (that of other weights, or of a BF16 weight before its last update). The check waits for the
// device.
Status EndWrite(Context* context, Parameter* p);

// Rows [begin, begin + rows) of a weight that exists in FP8 alone and was written, as `dtype`:
// float32 (code * scale_inv) or bfloat16 (its rounding).
StatusOr<Tensor> DequantizedRows(Context* context, const Parameter& p, int64_t begin, int64_t rows,
                                 DType dtype);

}  // namespace te
