// Writes a tensor in a quantized format: codes in one or both orientations, scales, amax.
//
//   code = cast(x * scale), dequantized = code * scale_inv
//
// cast: to nearest even, clipped to the largest finite value (PTX cvt.rn.satfinite); NaN stays NaN
// (E4M3 0x7f, E5M2 0x7f), infinities clip. E2M1 has no NaN: it becomes the largest value, as
// cvt.rn.satfinite.e2m1x2 has it. x * scale is one float32 multiplication.
// amax = max |x| over the elements that are not NaN (fmaxf's rule), 0 without elements.
//
//   kTensor          scale is read; scale_inv = 1 / scale (float32 division)
//   kTensorCurrent   a = max(amax, amax_epsilon); scale = QuantMax / a (float32 division); a zero,
//                    infinite or NaN: 1; an infinite quotient: the largest float32;
//                    power_of_2_scales clears the mantissa of scale; scale_inv = 1 / scale
//   kBlock*          the same for each block, scale_inv to its place; an infinite quotient: the
//                    largest number of x's dtype
//   kMx*             e = ceil(log2(amax_block * (1 / QuantMax))), reciprocal and product rounded to
//                    float32, e clipped to [-127, 127] (amax_block 0: -127); code e + 127; codes
//                    cast(x * 2^-e)
//   kNvfp4*          S = 448 * 6 / amax; infinite: the largest float32; amax 0 or infinite: 1;
//                    block code c = e4m3(amax_block * (S * (1 / 6))); codes cast(x * s) with
//                    s = 1 / (c * (1 / S)), infinite: the largest float32 (where c is 0, x but 0
//                    clips, and the dequantized value is 0); scale_inv = 1 / S; dequantized =
//                    (code * c) * scale_inv; each operation in float32
//     row_scaled     S and scale_inv from each row's own amax
//     four_over_six  with F = 448 or 256 (e4m3_use_256), S = F * 6 / amax and b = (amax_block / 6)
//                    * S: of the two encodings with c = e4m3(min(b, 448)) and e4m3(min(b * 1.5,
//                    448)), which makes the block's largest number 6 or 4, the one of the lower
//                    error, the first of equal ones (and where an error is no number). Error: over
//                    the elements, |v - x| or its square, v = ((code * c) * amax) / (6 * F); each
//                    operation in float32, summed along a row from 0 on, the rows of a square by
//                    halves (row i and row i + 8, then 4, 2, 1 apart)
//
// rowwise and columnwise are each quantized from x itself. NVFP4's columnwise copy with
// random_hadamard is made from x^T whose rows were multiplied, 16 by 16 elements, by H D / 4 (H:
// Sylvester's Hadamard matrix; D: the reference's signs, + + + - + - - - - - - + - + - -) in
// float32, times +-1/4 first, then as the fast transform sums (pairs 1 apart, then 2, 4, 8),
// rounded to x's dtype. What a row has after its last 16 elements stays as it is: a product over
// rows of two such copies is that of the tensors all the same. Their amaxes are those of the
// rounded result. Where amax (finite) is above a fourth of the largest number of x's dtype, all of
// it could overflow: then a fourth of it is made and rounded instead, and scale_inv is four times
// larger. Stochastic rounding (E2M1): of element i (row * columns + column) of an orientation, with
// u = Philox::ToUniform(number i of `random`): to the larger of the two neighbouring magnitudes if
// u is below the distance to the smaller one over the distance between them.
//
// x: [M, K], float32 or bfloat16, inner stride 1, any row stride; M or K may be 0. Bitwise
// repeatable; CPU and CUDA give the same bits. Source: Transformer Engine's recipes and their cast
// kernels (quantize_fp8, recipe_common, quantize_transpose_vector_blockwise, cast_mxfp8,
// quantize_transpose_nvfp4, quantize_4over6_nvfp4).
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/quant_spec.h"

namespace te {

struct QuantizeArgs {
  ConstTensorView x;
  QuantSpec out;
};

Status ValidateQuantize(const QuantizeArgs& args);
Status QuantizeCpu(const Exec& exec, const QuantizeArgs& args);
// kUnsupported for MXFP8 and NVFP4, naming the compute capability that they need.
Status QuantizeCuda(const Exec& exec, const QuantizeArgs& args);

}  // namespace te
