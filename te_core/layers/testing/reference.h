// The layers' equations as plain loops over std::complex<double>: the real part is the value, and
// an imaginary step of 1e-20 in one input gives its exact derivative (Squire and Trapp 1998).
// Shares nothing with the kernels but Philox, whose numbers are the contract of dropout.
#pragma once

#include <complex>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "te_core/layers/transformer_layer.h"

namespace te::test {

using Complex = std::complex<double>;
using Values = std::vector<Complex>;
// Inputs ("input", "key", "value") and parameters under their names.
using Tensors = std::map<std::string, Values>;
using Reference = std::function<Values(const Tensors&)>;

// The tensor, or nothing for a parameter that the layer does not have.
Values Get(const Tensors& tensors, const std::string& name);

// x [T, H]; an empty beta adds nothing.
Values NormReference(NormalizationKind kind, double epsilon, bool zero_centered, const Values& x,
                     const Values& gamma, const Values& beta);
// x [T, K], w [N, K], bias [N] or empty.
Values LinearReference(const Values& x, const Values& w, const Values& bias, int64_t in_features);
// x [T, F] or [T, 2F].
Values ActivationReference(ActivationKind kind, const ActivationParams& params, const Values& x,
                           int64_t ffn);
Values MlpReference(const LayerNormMLPOptions& options, const Tensors& tensors,
                    const std::string& prefix, const Values& x, Values* normed = nullptr);

struct AttentionProblem {
  int64_t batch = 1, queries = 1, keys = 1, heads = 1, groups = 1, head_dim = 1;
  AttentionMaskType mask_type = AttentionMaskType::kCausal;
  WindowSize window;
  double scale = 1;
  std::vector<uint8_t> padding;    // [B, Skv], or empty
  std::vector<uint8_t> arbitrary;  // [B, n, Sq, Skv], or empty
  float dropout = 0;
  RandomState random;
};
// q [B, Sq, n, d], k, v [B, Skv, g, d].
Values AttentionReference(const AttentionProblem& p, const Values& q, const Values& k,
                          const Values& v);

struct RotaryReference {
  std::vector<double> cos, sin;  // [P, R]; empty: no rotation
  int64_t half = 0;              // R
  bool interleaved = false;
  std::vector<int32_t> positions;  // [B, S], or empty
};
// x [B, S, n, d].
Values RopeReference(const RotaryReference& r, const Values& x, int64_t batch, int64_t sequence,
                     int64_t heads, int64_t dim);

// x + residual with dropout on x; [T, H] dense in memory order.
Values DropoutAddReference(const Values& x, const Values& residual, float p,
                           const RandomState& random);

// [S, B, rest] <-> [B, S, rest].
Values SwapFirstTwo(const Values& x, int64_t a, int64_t b);

// Hidden states in the options' format. `attention` has batch, queries, masks, dropout and random
// set; heads, scale and mask type come from the options.
Values MultiheadAttentionReference(const MultiheadAttentionOptions& options, const Tensors& tensors,
                                   const std::string& prefix, const Values& x,
                                   AttentionProblem attention, const RotaryReference& rotary,
                                   Values* normed = nullptr);
struct HiddenDropout {
  RandomState attention, mlp;
};
Values TransformerLayerReference(const TransformerLayerOptions& options, const Tensors& tensors,
                                 const Values& x, const AttentionProblem& attention,
                                 const RotaryReference& rotary, const HiddenDropout& hidden);

}  // namespace te::test
