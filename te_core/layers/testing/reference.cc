#include "te_core/layers/testing/reference.h"

#include <cmath>

#include "te_kernels/base/philox.h"

namespace te::test {

Values Get(const Tensors& tensors, const std::string& name) {
  const auto it = tensors.find(name);
  return it == tensors.end() ? Values() : it->second;
}

Values NormReference(NormalizationKind kind, double epsilon, bool zero_centered, const Values& x,
                     const Values& gamma, const Values& beta) {
  const size_t hidden = gamma.size();
  Values y(x.size());
  for (size_t t = 0; t < x.size(); t += hidden) {
    Complex mean = 0, square = 0;
    if (kind == NormalizationKind::kLayerNorm) {
      for (size_t h = 0; h < hidden; ++h) mean += x[t + h] / static_cast<double>(hidden);
    }
    for (size_t h = 0; h < hidden; ++h)
      square += (x[t + h] - mean) * (x[t + h] - mean) / static_cast<double>(hidden);
    const Complex rstd = 1.0 / std::sqrt(square + epsilon);
    for (size_t h = 0; h < hidden; ++h) {
      y[t + h] = (x[t + h] - mean) * rstd * (gamma[h] + (zero_centered ? 1.0 : 0.0));
      if (!beta.empty()) y[t + h] += beta[h];
    }
  }
  return y;
}

Values LinearReference(const Values& x, const Values& w, const Values& bias, int64_t in_features) {
  const size_t in = static_cast<size_t>(in_features), out = w.size() / in;
  Values y(x.size() / in * out);
  for (size_t t = 0; t < x.size() / in; ++t) {
    for (size_t n = 0; n < out; ++n) {
      Complex sum = bias.empty() ? 0 : bias[n];
      for (size_t k = 0; k < in; ++k) sum += x[t * in + k] * w[n * in + k];
      y[t * out + n] = sum;
    }
  }
  return y;
}

namespace {

Complex Sigmoid(Complex u) { return 1.0 / (1.0 + std::exp(-u)); }
Complex Relu(Complex u) { return u.real() > 0 ? u : 0; }

Complex Plain(ActivationKind kind, Complex u) {
  switch (kind) {
    case ActivationKind::kGelu:
    case ActivationKind::kGeglu:
      return 0.5 * u * (1.0 + std::tanh(0.79788456 * (u + 0.044715 * u * u * u)));
    case ActivationKind::kGlu:
      return Sigmoid(u);
    case ActivationKind::kQgelu:
    case ActivationKind::kQgeglu:
      return u * Sigmoid(1.702 * u);
    case ActivationKind::kRelu:
    case ActivationKind::kReglu:
      return Relu(u);
    case ActivationKind::kSrelu:
    case ActivationKind::kSreglu:
      return Relu(u) * Relu(u);
    default:
      return u * Sigmoid(u);
  }
}

}  // namespace

Values ActivationReference(ActivationKind kind, const ActivationParams& params, const Values& x,
                           int64_t ffn) {
  const size_t f = static_cast<size_t>(ffn), width = IsGated(kind) ? 2 * f : f;
  Values y;
  for (size_t t = 0; t < x.size(); t += width) {
    for (size_t i = 0; i < f; ++i) {
      const Complex u = x[t + i];
      if (!IsGated(kind)) {
        y.push_back(Plain(kind, u));
      } else if (kind == ActivationKind::kClampedSwiglu) {
        const double limit = params.limit;
        const Complex gate = u.real() > limit ? limit : u;
        const Complex v = x[t + f + i];
        const Complex linear = v.real() > limit ? limit : v.real() < -limit ? -limit : v;
        y.push_back(gate * Sigmoid(static_cast<double>(params.alpha) * gate) *
                    (linear + static_cast<double>(params.glu_linear_offset)));
      } else {
        y.push_back(Plain(kind, u) * x[t + f + i]);
      }
    }
  }
  return y;
}

Values MlpReference(const LayerNormMLPOptions& o, const Tensors& tensors, const std::string& prefix,
                    const Values& x, Values* normed) {
  const auto get = [&](const char* name) { return Get(tensors, prefix + name); };
  const Values n = NormReference(o.normalization, o.layernorm_epsilon, o.zero_centered_gamma, x,
                                 get("layer_norm_weight"), get("layer_norm_bias"));
  if (normed != nullptr) *normed = n;
  const Values fc1 = LinearReference(n, get("fc1_weight"), get("fc1_bias"), o.hidden_size);
  const Values act = ActivationReference(o.activation, o.activation_params, fc1, o.ffn_hidden_size);
  return LinearReference(act, get("fc2_weight"), get("fc2_bias"), o.ffn_hidden_size);
}

namespace {

bool Visible(const AttentionProblem& p, int64_t b, int64_t h, int64_t i, int64_t j) {
  const AttentionMaskType type = p.mask_type;
  const bool bottom_right = type == AttentionMaskType::kCausalBottomRight ||
                            type == AttentionMaskType::kPaddingCausalBottomRight;
  const bool causal = bottom_right || type == AttentionMaskType::kCausal ||
                      type == AttentionMaskType::kPaddingCausal;
  const int64_t diagonal = i + (bottom_right ? p.keys - p.queries : 0);
  if (causal && j > diagonal) return false;
  if (p.window.left >= 0 && j < diagonal - p.window.left) return false;
  if (p.window.right >= 0 && j > diagonal + p.window.right) return false;
  if (!p.padding.empty() && p.padding[static_cast<size_t>(b * p.keys + j)] != 0) return false;
  return p.arbitrary.empty() ||
         p.arbitrary[static_cast<size_t>(((b * p.heads + h) * p.queries + i) * p.keys + j)] == 0;
}

}  // namespace

Values AttentionReference(const AttentionProblem& p, const Values& q, const Values& k,
                          const Values& v) {
  const int64_t d = p.head_dim, r = p.heads / p.groups;
  Values out(static_cast<size_t>(p.batch * p.queries * p.heads * d));
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t h = 0; h < p.heads; ++h) {
      for (int64_t i = 0; i < p.queries; ++i) {
        Values weight(static_cast<size_t>(p.keys));
        Complex total = 0;
        const auto q_at = [&](int64_t c) {
          return q[static_cast<size_t>(((b * p.queries + i) * p.heads + h) * d + c)];
        };
        const auto kv = [&](const Values& x, int64_t j, int64_t c) {
          return x[static_cast<size_t>(((b * p.keys + j) * p.groups + h / r) * d + c)];
        };
        for (int64_t j = 0; j < p.keys; ++j) {
          if (!Visible(p, b, h, i, j)) continue;
          Complex score = 0;
          for (int64_t c = 0; c < d; ++c) score += q_at(c) * kv(k, j, c);
          weight[static_cast<size_t>(j)] = std::exp(p.scale * score);
          total += weight[static_cast<size_t>(j)];
        }
        if (total == 0.0) continue;
        for (int64_t j = 0; j < p.keys; ++j) {
          const auto number =
              static_cast<uint64_t>(((b * p.heads + h) * p.queries + i) * p.keys + j);
          double keep = 1;
          if (p.dropout > 0) {
            keep = Philox::ToUniform(Philox::At(p.random, number)) >= p.dropout
                       ? 1 / (1 - static_cast<double>(p.dropout))
                       : 0;
          }
          for (int64_t c = 0; c < d; ++c) {
            out[static_cast<size_t>(((b * p.queries + i) * p.heads + h) * d + c)] +=
                keep * weight[static_cast<size_t>(j)] / total * kv(v, j, c);
          }
        }
      }
    }
  }
  return out;
}

Values RopeReference(const RotaryReference& r, const Values& x, int64_t batch, int64_t sequence,
                     int64_t heads, int64_t dim) {
  Values y = x;
  if (r.cos.empty()) return y;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t s = 0; s < sequence; ++s) {
      const int64_t p =
          r.positions.empty() ? s : r.positions[static_cast<size_t>(b * sequence + s)];
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t base = ((b * sequence + s) * heads + h) * dim;
        for (int64_t i = 0; i < r.half; ++i) {
          const auto first = static_cast<size_t>(base + (r.interleaved ? 2 * i : i));
          const auto second = static_cast<size_t>(base + (r.interleaved ? 2 * i + 1 : i + r.half));
          const double c = r.cos[static_cast<size_t>(p * r.half + i)],
                       n = r.sin[static_cast<size_t>(p * r.half + i)];
          y[first] = x[first] * c - x[second] * n;
          y[second] = x[first] * n + x[second] * c;
        }
      }
    }
  }
  return y;
}

Values DropoutAddReference(const Values& x, const Values& residual, float p,
                           const RandomState& random) {
  Values y = residual;
  for (size_t i = 0; i < x.size(); ++i) {
    const bool keep = p == 0 || Philox::ToUniform(Philox::At(random, i)) >= p;
    if (keep) y[i] += x[i] / (1 - static_cast<double>(p));
  }
  return y;
}

Values SwapFirstTwo(const Values& x, int64_t a, int64_t b) {
  const size_t rest = x.size() / static_cast<size_t>(a * b);
  Values y;
  for (size_t j = 0; j < static_cast<size_t>(b); ++j) {
    for (size_t i = 0; i < static_cast<size_t>(a); ++i) {
      for (size_t k = 0; k < rest; ++k) y.push_back(x[(i * static_cast<size_t>(b) + j) * rest + k]);
    }
  }
  return y;
}

namespace {

void Append(Values* to, const Values& from, size_t begin, size_t end) {
  to->insert(to->end(), from.begin() + static_cast<std::ptrdiff_t>(begin),
             from.begin() + static_cast<std::ptrdiff_t>(end));
}

// The rows of query, key and value of a fused weight (row = in_features elements) or bias (row =
// 1).
void SplitRows(const Values& fused, bool interleaved, int64_t heads, int64_t groups, int64_t d,
               Values* q, Values* k, Values* v) {
  if (fused.empty()) return;
  const size_t row = fused.size() / static_cast<size_t>((heads + 2 * groups) * d);
  const size_t head = row * static_cast<size_t>(d), r = static_cast<size_t>(heads / groups);
  if (!interleaved) {
    const size_t n = static_cast<size_t>(heads), g = static_cast<size_t>(groups);
    Append(q, fused, 0, n * head);
    Append(k, fused, n * head, (n + g) * head);
    Append(v, fused, (n + g) * head, (n + 2 * g) * head);
    return;
  }
  for (size_t g = 0; g < static_cast<size_t>(groups); ++g) {
    const size_t base = g * (r + 2) * head;
    Append(q, fused, base, base + r * head);
    Append(k, fused, base + r * head, base + (r + 1) * head);
    Append(v, fused, base + (r + 1) * head, base + (r + 2) * head);
  }
}

}  // namespace

Values MultiheadAttentionReference(const MultiheadAttentionOptions& o, const Tensors& tensors,
                                   const std::string& prefix, const Values& x, AttentionProblem p,
                                   const RotaryReference& rotary, Values* normed) {
  const bool sbhd = o.qkv_format == AttentionFormat::kSbhd;
  const int64_t d = o.kv_channels != 0 ? o.kv_channels : o.hidden_size / o.num_attention_heads;
  p.heads = o.num_attention_heads;
  p.groups = o.num_gqa_groups != 0 ? o.num_gqa_groups : p.heads;
  p.head_dim = d;
  p.keys = p.queries;
  p.mask_type = o.attn_mask_type;
  p.window = o.window_size;
  p.scale = o.softmax_scale != 0 ? static_cast<double>(o.softmax_scale)
                                 : 1 / std::sqrt(static_cast<double>(d));
  p.dropout = o.attention_dropout;
  const std::string qkv = prefix + (o.input_layernorm ? "layernorm_qkv." : "qkv.");
  Values h = x;
  if (o.input_layernorm) {
    h = NormReference(o.normalization, o.layernorm_epsilon, o.zero_centered_gamma, x,
                      Get(tensors, qkv + "layer_norm_weight"),
                      Get(tensors, qkv + "layer_norm_bias"));
  }
  if (normed != nullptr) *normed = h;
  if (sbhd) h = SwapFirstTwo(h, p.queries, p.batch);
  Values wq, wk, wv, bq, bk, bv;
  if (o.fuse_qkv_params) {
    SplitRows(Get(tensors, qkv + "weight"), o.qkv_weight_interleaved, p.heads, p.groups, d, &wq,
              &wk, &wv);
    SplitRows(Get(tensors, qkv + "bias"), o.qkv_weight_interleaved, p.heads, p.groups, d, &bq, &bk,
              &bv);
  } else {
    wq = Get(tensors, qkv + "query_weight"), bq = Get(tensors, qkv + "query_bias");
    wk = Get(tensors, qkv + "key_weight"), bk = Get(tensors, qkv + "key_bias");
    wv = Get(tensors, qkv + "value_weight"), bv = Get(tensors, qkv + "value_bias");
  }
  const Values q = RopeReference(rotary, LinearReference(h, wq, bq, o.hidden_size), p.batch,
                                 p.queries, p.heads, d);
  const Values k = RopeReference(rotary, LinearReference(h, wk, bk, o.hidden_size), p.batch,
                                 p.queries, p.groups, d);
  const Values v = LinearReference(h, wv, bv, o.hidden_size);
  const Values context = AttentionReference(p, q, k, v);
  const Values out = LinearReference(context, Get(tensors, prefix + "proj.weight"),
                                     Get(tensors, prefix + "proj.bias"), p.heads * d);
  return sbhd ? SwapFirstTwo(out, p.batch, p.queries) : out;
}

Values TransformerLayerReference(const TransformerLayerOptions& o, const Tensors& tensors,
                                 const Values& x, const AttentionProblem& attention,
                                 const RotaryReference& rotary, const HiddenDropout& hidden) {
  MultiheadAttentionOptions mha;
  mha.hidden_size = o.hidden_size;
  mha.num_attention_heads = o.num_attention_heads;
  mha.kv_channels = o.kv_channels;
  mha.num_gqa_groups = o.num_gqa_groups;
  mha.attention_dropout = o.attention_dropout;
  mha.layernorm_epsilon = o.layernorm_epsilon;
  mha.attn_mask_type = o.self_attn_mask_type;
  mha.window_size = o.window_size;
  mha.softmax_scale = o.softmax_scale;
  mha.input_layernorm = !o.output_layernorm;
  mha.normalization = o.normalization;
  mha.zero_centered_gamma = o.zero_centered_gamma;
  mha.fuse_qkv_params = o.fuse_qkv_params;
  mha.qkv_weight_interleaved = o.qkv_weight_interleaved;
  mha.qkv_format = o.attn_input_format;
  LayerNormMLPOptions mlp;
  mlp.hidden_size = o.hidden_size;
  mlp.ffn_hidden_size = o.ffn_hidden_size;
  mlp.layernorm_epsilon = o.layernorm_epsilon;
  mlp.normalization = o.normalization;
  mlp.zero_centered_gamma = o.zero_centered_gamma;
  mlp.activation = o.activation;
  mlp.activation_params = o.activation_params;

  Values n1, n2;
  const bool post = o.apply_residual_connection_post_layernorm;
  const Values a =
      MultiheadAttentionReference(mha, tensors, "self_attention.", x, attention, rotary, &n1);
  const Values h = DropoutAddReference(a, post && !o.output_layernorm ? n1 : x, o.hidden_dropout,
                                       hidden.attention);
  const Values m =
      MlpReference(mlp, tensors, "layernorm_mlp.", o.parallel_attention_mlp ? x : h, &n2);
  const Values y = DropoutAddReference(m, post ? n2 : h, o.hidden_dropout, hidden.mlp);
  if (!o.output_layernorm) return y;
  return NormReference(o.normalization, o.layernorm_epsilon, o.zero_centered_gamma, y,
                       Get(tensors, "layernorm.weight"), Get(tensors, "layernorm.bias"));
}

}  // namespace te::test
