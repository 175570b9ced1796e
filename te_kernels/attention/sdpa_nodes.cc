#include "te_kernels/attention/sdpa_nodes.h"

#include <cudnn_frontend.h>

#include <memory>

namespace te {
namespace {

namespace fe = cudnn_frontend;
using Attributes = std::shared_ptr<fe::graph::Tensor_attributes>;

// [B, S, n, d] as cuDNN's [B, n, S, d].
fe::graph::Tensor_attributes Describe(const ConstTensorView& t, SdpaTensor uid) {
  return fe::graph::Tensor_attributes()
      .set_uid(uid)
      .set_dim({t.dim(0), t.dim(2), t.dim(1), t.dim(3)})
      .set_stride({t.stride(0), t.stride(2), t.stride(1), t.stride(3)});
}

// Packed, as cuDNN wants it: of one sequence the distance to the next does not count, though a
// slice of its heads has a larger one.
fe::graph::Tensor_attributes DescribeLse(const ConstTensorView& t) {
  const int64_t batch_stride = t.dim(0) == 1 ? t.dim(1) * t.stride(1) : t.stride(0);
  return fe::graph::Tensor_attributes()
      .set_uid(kSdpaLse)
      .set_dim({t.dim(0), t.dim(1), t.dim(2), 1})
      .set_stride({batch_stride, t.stride(1), t.stride(2), 1})
      .set_data_type(fe::DataType_t::FLOAT);
}

fe::graph::Tensor_attributes DescribeScalar(SdpaTensor uid) {
  return fe::graph::Tensor_attributes()
      .set_uid(uid)
      .set_dim({1, 1, 1, 1})
      .set_stride({1, 1, 1, 1})
      .set_data_type(fe::DataType_t::FLOAT);
}

// Makes a node's result an output of the graph, as `as` has it; its type is the graph's unless `as`
// has one.
void SetOutput(const Attributes& t, const fe::graph::Tensor_attributes& as) {
  t->set_output(true).set_uid(as.get_uid()).set_dim(as.get_dim()).set_stride(as.get_stride());
  if (as.get_data_type() != fe::DataType_t::NOT_SET) t->set_data_type(as.get_data_type());
}

class Nodes {
 public:
  Nodes(const SdpaProblem& problem, fe::graph::Graph* graph) : p_(problem), graph_(*graph) {}

  void Forward() {
    auto attributes =
        fe::graph::SDPA_attributes().set_name("attention").set_generate_stats(p_.lse.defined());
    SetMask(&attributes);
    auto [out, lse] =
        graph_.sdpa(Input(p_.q, kSdpaQ), Input(p_.k, kSdpaK), Input(p_.v, kSdpaV), attributes);
    SetOutput(out, Describe(p_.out, kSdpaOut));
    if (p_.lse.defined()) SetOutput(lse, DescribeLse(p_.lse));
  }

  void Backward() {
    auto attributes = fe::graph::SDPA_backward_attributes()
                          .set_name("attention backward")
                          .set_deterministic_algorithm(p_.deterministic);
    SetMask(&attributes);
    auto [dq, dk, dv] = graph_.sdpa_backward(
        Input(p_.q, kSdpaQ), Input(p_.k, kSdpaK), Input(p_.v, kSdpaV), Input(p_.out, kSdpaOut),
        Input(p_.dout, kSdpaDout), graph_.tensor(DescribeLse(p_.lse)), attributes);
    SetOutput(dq, Describe(p_.dq, kSdpaDq));
    SetOutput(dk, Describe(p_.dk, kSdpaDk));
    SetOutput(dv, Describe(p_.dv, kSdpaDv));
  }

  void Fp8Forward() {
    auto attributes = fe::graph::SDPA_fp8_attributes().set_name("fp8 attention");
    attributes.set_generate_stats(true);
    SetMask(&attributes);
    auto [out, lse, amax_s, amax_o] = graph_.sdpa_fp8(
        Input(p_.q, kSdpaQ), Input(p_.k, kSdpaK), Input(p_.v, kSdpaV), Scalar(kSdpaDescaleQ),
        Scalar(kSdpaDescaleK), Scalar(kSdpaDescaleV), Scalar(kSdpaDescaleS), Scalar(kSdpaScaleS),
        Scalar(kSdpaScaleO), attributes);
    SetOutput(out, Describe(p_.out, kSdpaOut).set_data_type(kForwardType));
    SetOutput(lse, DescribeLse(p_.lse));
    SetOutput(amax_s, DescribeScalar(kSdpaAmaxS));
    SetOutput(amax_o, DescribeScalar(kSdpaAmaxO));
  }

  void Fp8Backward() {
    const fe::DataType_t gradient = p_.gradient_format == QuantFormat::kFloat8E5M2
                                        ? fe::DataType_t::FP8_E5M2
                                        : fe::DataType_t::FP8_E4M3;
    auto attributes = fe::graph::SDPA_fp8_backward_attributes().set_name("fp8 attention backward");
    attributes.set_deterministic_algorithm(p_.deterministic);
    SetMask(&attributes);
    auto [dq, dk, dv, amax_dq, amax_dk, amax_dv, amax_dp] = graph_.sdpa_fp8_backward(
        Input(p_.q, kSdpaQ), Input(p_.k, kSdpaK), Input(p_.v, kSdpaV), Input(p_.out, kSdpaOut),
        graph_.tensor(Describe(p_.dout, kSdpaDout).set_data_type(gradient)),
        graph_.tensor(DescribeLse(p_.lse)), Scalar(kSdpaDescaleQ), Scalar(kSdpaDescaleK),
        Scalar(kSdpaDescaleV), Scalar(kSdpaDescaleO), Scalar(kSdpaDescaleDo), Scalar(kSdpaDescaleS),
        Scalar(kSdpaDescaleDp), Scalar(kSdpaScaleS), Scalar(kSdpaScaleDq), Scalar(kSdpaScaleDk),
        Scalar(kSdpaScaleDv), Scalar(kSdpaScaleDp), attributes);
    SetOutput(dq, Describe(p_.dq, kSdpaDq).set_data_type(gradient));
    SetOutput(dk, Describe(p_.dk, kSdpaDk).set_data_type(gradient));
    SetOutput(dv, Describe(p_.dv, kSdpaDv).set_data_type(gradient));
    SetOutput(amax_dq, DescribeScalar(kSdpaAmaxDq));
    SetOutput(amax_dk, DescribeScalar(kSdpaAmaxDk));
    SetOutput(amax_dv, DescribeScalar(kSdpaAmaxDv));
    SetOutput(amax_dp, DescribeScalar(kSdpaAmaxDp));
  }

 private:
  static constexpr fe::DataType_t kForwardType = fe::DataType_t::FP8_E4M3;

  Attributes Input(const ConstTensorView& t, SdpaTensor uid) {
    return graph_.tensor(p_.fp8 ? Describe(t, uid).set_data_type(kForwardType) : Describe(t, uid));
  }
  Attributes Scalar(SdpaTensor uid) { return graph_.tensor(DescribeScalar(uid)); }
  Attributes Lengths(SdpaTensor uid) {
    return graph_.tensor(fe::graph::Tensor_attributes()
                             .set_uid(uid)
                             .set_dim({p_.q.dim(0), 1, 1, 1})
                             .set_stride({1, 1, 1, 1})
                             .set_data_type(fe::DataType_t::INT32));
  }

  template <typename SdpaAttributes>
  void SetMask(SdpaAttributes* attributes) {
    attributes->set_attn_scale(p_.scale);
    if (IsCausal(p_.mask)) {
      attributes->set_diagonal_alignment(IsBottomRight(p_.mask)
                                             ? fe::DiagonalAlignment_t::BOTTOM_RIGHT
                                             : fe::DiagonalAlignment_t::TOP_LEFT);
      attributes->set_diagonal_band_right_bound(0);
    }
    // cuDNN counts the keys up to the diagonal, the diagonal's own included.
    if (p_.window_left >= 0)
      attributes->set_diagonal_band_left_bound(static_cast<int>(p_.window_left + 1));
    if (p_.lengths) {
      attributes->set_padding_mask(true)
          .set_seq_len_q(Lengths(kSdpaLengthsQ))
          .set_seq_len_kv(Lengths(kSdpaLengthsKv));
    }
  }

  const SdpaProblem& p_;
  fe::graph::Graph& graph_;
};

}  // namespace

std::string SdpaProblem::Key() const {
  std::string key = backward ? "backward" : "forward";
  if (fp8) key = "fp8_" + key;
  if (!deterministic) key += " nondeterministic";
  if (fp8 && backward) key += fmt::format(" {}", Name(gradient_format));
  for (const ConstTensorView* t : {&q, &k, &v, &out, &dout, &lse, &dq, &dk, &dv}) {
    if (!t->defined()) {
      key += " -";
      continue;
    }
    for (int i = 0; i < t->rank(); ++i) key += fmt::format(" {}/{}", t->dim(i), t->stride(i));
  }
  return key + fmt::format(" {} {} {} {}", static_cast<int>(mask), window_left, scale, lengths);
}

double SdpaProblem::flops() const {
  return (backward ? 10.0 : 4.0) * static_cast<double>(q.elements()) *
         static_cast<double>(k.dim(1));
}

void AddSdpaNodes(const SdpaProblem& problem, fe::graph::Graph* graph) {
  graph->set_io_data_type(problem.fp8 ? fe::DataType_t::FP8_E4M3 : fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  Nodes nodes(problem, graph);
  if (problem.fp8) {
    problem.backward ? nodes.Fp8Backward() : nodes.Fp8Forward();
  } else {
    problem.backward ? nodes.Backward() : nodes.Forward();
  }
}

}  // namespace te
