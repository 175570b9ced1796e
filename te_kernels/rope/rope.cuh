// The rotation of one pair on CUDA, written so that every kernel rounds alike: of two products and
// a sum the compiler may fuse either.
#pragma once

namespace te::rope {

__device__ inline float RotatedFirst(float u, float v, float c, float s) {
  return __fmaf_rn(u, c, -__fmul_rn(v, s));
}
__device__ inline float RotatedSecond(float u, float v, float c, float s) {
  return __fmaf_rn(u, s, __fmul_rn(v, c));
}

}  // namespace te::rope
