// Internal to adamw_cuda: the updates that write FP8 codes of the parameter in the same pass.
#pragma once

#include "te_kernels/adamw/adamw.h"

namespace te::adamw_cuda {

// Whether the tiles hold these (valid) arguments: a bfloat16 param in whole tiles, E4M3 under one
// scale known beforehand, all pointers aligned to 16 bytes.
bool TilesTake(const AdamWArgs& args);

// As AdamWCuda, for what TilesTake.
Status AdamWTiles(const Exec& exec, const AdamWArgs& args);

// As AdamWCuda, for (valid) FP8-only weights.
Status AdamWFloat8(const Exec& exec, const AdamWArgs& args);

}  // namespace te::adamw_cuda
