// Attention of attention.h, query by query, whole rows; templated on the scalar. Also the sums of
// magnitudes from which the tests derive their tolerances.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "te_kernels/attention/attention_mask.h"
#include "te_kernels/base/philox.h"

namespace te::ref {

struct AttentionShape {
  int64_t batch, queries, keys, heads, groups, head_dim, value_dim;
  int64_t Q(int64_t b, int64_t i, int64_t h, int64_t c) const {
    return ((b * queries + i) * heads + h) * head_dim + c;
  }
  int64_t Out(int64_t b, int64_t i, int64_t h, int64_t c) const {
    return ((b * queries + i) * heads + h) * value_dim + c;
  }
  int64_t K(int64_t b, int64_t j, int64_t g, int64_t c) const {
    return ((b * keys + j) * groups + g) * head_dim + c;
  }
  int64_t V(int64_t b, int64_t j, int64_t g, int64_t c) const {
    return ((b * keys + j) * groups + g) * value_dim + c;
  }
};

// Whether query i may see key j: the definition of each mask type in Transformer Engine's words,
// one pair at a time.
inline bool Visible(const AttentionMask& mask, const AttentionShape& s, int64_t b, int64_t h,
                    int64_t i, int64_t j) {
  const bool bottom_right = mask.type == AttentionMaskType::kCausalBottomRight ||
                            mask.type == AttentionMaskType::kPaddingCausalBottomRight;
  const bool causal = bottom_right || mask.type == AttentionMaskType::kCausal ||
                      mask.type == AttentionMaskType::kPaddingCausal;
  const int64_t diagonal = bottom_right ? i + s.keys - s.queries : i;
  if (causal && j > diagonal) return false;
  if (mask.window_left >= 0 && j < diagonal - mask.window_left) return false;
  if (!causal && mask.window_right >= 0 && j > diagonal + mask.window_right) return false;
  const auto at = [](const ConstTensorView& m, std::initializer_list<int64_t> index) {
    int64_t offset = 0;
    int axis = 0;
    for (int64_t x : index) offset += (m.dim(axis) == 1 ? 0 : x) * m.stride(axis), ++axis;
    return m.as<uint8_t>()[offset] != 0;
  };
  const bool padding = mask.type == AttentionMaskType::kPadding ||
                       mask.type == AttentionMaskType::kPaddingCausal ||
                       mask.type == AttentionMaskType::kPaddingCausalBottomRight;
  if (padding && at(mask.padding, {b, j})) return false;
  return !(mask.type == AttentionMaskType::kArbitrary && at(mask.arbitrary, {b, h, i, j}));
}

inline bool Kept(const RandomState& random, float dropout, const AttentionShape& s, int64_t b,
                 int64_t h, int64_t i, int64_t j) {
  const uint64_t index = static_cast<uint64_t>(((b * s.heads + h) * s.queries + i) * s.keys + j);
  return Philox::ToUniform(Philox::At(random.Resolved(), index)) >= dropout;
}

inline double Real(double x) { return x; }
template <typename Scalar>
double Real(const Scalar& x) {
  return x.real();
}

// out; lse [B, n, Sq] when wanted.
template <typename Scalar>
std::vector<Scalar> Attention(const AttentionShape& s, const std::vector<Scalar>& q,
                              const std::vector<Scalar>& k, const std::vector<Scalar>& v,
                              const AttentionMask& mask, double scale, float dropout,
                              const RandomState& random, std::vector<double>* lse = nullptr) {
  std::vector<Scalar> out(s.batch * s.queries * s.heads * s.value_dim, Scalar(0));
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t g = h / (s.heads / s.groups);
      for (int64_t i = 0; i < s.queries; ++i) {
        std::vector<Scalar> score(s.keys, Scalar(0));
        double largest = -std::numeric_limits<double>::infinity();
        for (int64_t j = 0; j < s.keys; ++j) {
          if (!Visible(mask, s, b, h, i, j)) continue;
          for (int64_t c = 0; c < s.head_dim; ++c)
            score[j] += q[s.Q(b, i, h, c)] * k[s.K(b, j, g, c)];
          score[j] *= scale;
          largest = std::max(largest, Real(score[j]));
        }
        Scalar sum(0);
        for (int64_t j = 0; j < s.keys; ++j) {
          if (Visible(mask, s, b, h, i, j)) sum += std::exp(score[j] - largest);
        }
        if (lse != nullptr) lse->push_back(largest + std::log(Real(sum)));
        for (int64_t j = 0; j < s.keys; ++j) {
          if (!Visible(mask, s, b, h, i, j)) continue;
          if (dropout > 0 && !Kept(random, dropout, s, b, h, i, j)) continue;
          const Scalar p =
              std::exp(score[j] - largest) / sum / (1.0 - static_cast<double>(dropout));
          for (int64_t c = 0; c < s.value_dim; ++c)
            out[s.Out(b, i, h, c)] += p * v[s.V(b, j, g, c)];
        }
      }
    }
  }
  return out;
}

struct AttentionGradients {
  std::vector<double> dq, dk, dv;
};

// Of sum(dout * out), by Dao et al. 2022, appendix B.2: with r = keep / (1 - dropout) and dp_j =
// r_j dout . v_j, ds_j = p_j (dp_j - sum_l p_l dp_l) scale.
inline AttentionGradients AttentionBackward(const AttentionShape& s, const std::vector<double>& q,
                                            const std::vector<double>& k,
                                            const std::vector<double>& v,
                                            const std::vector<double>& dout,
                                            const AttentionMask& mask, double scale, float dropout,
                                            const RandomState& random) {
  AttentionGradients out = {std::vector<double>(q.size()), std::vector<double>(k.size()),
                            std::vector<double>(v.size())};
  std::vector<double> lse;
  Attention<double>(s, q, k, v, mask, scale, dropout, random, &lse);
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t g = h / (s.heads / s.groups);
      for (int64_t i = 0; i < s.queries; ++i) {
        std::vector<double> p(s.keys), dp(s.keys);
        double dot = 0;
        for (int64_t j = 0; j < s.keys; ++j) {
          if (!Visible(mask, s, b, h, i, j)) continue;
          double score = 0;
          for (int64_t c = 0; c < s.head_dim; ++c) score += q[s.Q(b, i, h, c)] * k[s.K(b, j, g, c)];
          p[j] = std::exp(scale * score - lse[(b * s.heads + h) * s.queries + i]);
          if (dropout > 0 && !Kept(random, dropout, s, b, h, i, j)) continue;
          const double r = 1 / (1.0 - static_cast<double>(dropout));
          for (int64_t c = 0; c < s.value_dim; ++c) {
            dp[j] += r * dout[s.Out(b, i, h, c)] * v[s.V(b, j, g, c)];
            out.dv[s.V(b, j, g, c)] += p[j] * r * dout[s.Out(b, i, h, c)];
          }
          dot += p[j] * dp[j];
        }
        for (int64_t j = 0; j < s.keys; ++j) {
          const double ds = p[j] * (dp[j] - dot) * scale;
          for (int64_t c = 0; c < s.head_dim; ++c) {
            out.dq[s.Q(b, i, h, c)] += ds * k[s.K(b, j, g, c)];
            out.dk[s.K(b, j, g, c)] += ds * q[s.Q(b, i, h, c)];
          }
        }
      }
    }
  }
  return out;
}

}  // namespace te::ref
