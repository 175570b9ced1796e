#include "bench/fp8_sdpa.h"

#include <cudnn_frontend.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <map>

#include "te_kernels/cuda/cuda_state.h"

namespace te::bench {
namespace {

namespace fe = cudnn_frontend;

// A plan that wants more memory is not one to choose.
constexpr int64_t kMaxWorkspace = int64_t{40} << 30;

using Attributes = std::shared_ptr<fe::graph::Tensor_attributes>;

fe::DataType_t TypeOf(QuantFormat format) {
  return format == QuantFormat::kFloat8E5M2 ? fe::DataType_t::FP8_E5M2 : fe::DataType_t::FP8_E4M3;
}

}  // namespace

struct Fp8Sdpa::Graph {
  explicit Graph(const Fp8SdpaProblem& p) : problem(p) {
    graph.set_io_data_type(p.bf16 ? fe::DataType_t::BFLOAT16 : fe::DataType_t::FP8_E4M3)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (p.bf16) {
      AddBf16Backward();
    } else if (p.backward) {
      AddBackward();
    } else {
      AddForward();
    }
  }

  // [B, S, n, d] as cuDNN's [B, n, S, d].
  fe::graph::Tensor_attributes Describe(int64_t uid, int64_t heads, bool in_qkv) const {
    const Fp8SdpaProblem& p = problem;
    const int64_t all = in_qkv && p.packed ? p.heads + 2 * p.groups : heads;
    return fe::graph::Tensor_attributes()
        .set_uid(uid)
        .set_dim({p.batch, heads, p.sequence, p.head_dim})
        .set_stride({p.sequence * all * p.head_dim, p.head_dim, all * p.head_dim, 1});
  }
  fe::graph::Tensor_attributes DescribeStatistics() const {
    const Fp8SdpaProblem& p = problem;
    return fe::graph::Tensor_attributes()
        .set_uid(kSdpaLse)
        .set_dim({p.batch, p.heads, p.sequence, 1})
        .set_stride({p.heads * p.sequence, p.sequence, 1, 1})
        .set_data_type(fe::DataType_t::FLOAT);
  }
  Attributes Input(int64_t uid, int64_t heads, bool in_qkv, fe::DataType_t type) {
    return graph.tensor(Describe(uid, heads, in_qkv).set_data_type(type));
  }
  Attributes Scalar(int64_t uid) {
    return graph.tensor(fe::graph::Tensor_attributes()
                            .set_uid(uid)
                            .set_dim({1, 1, 1, 1})
                            .set_stride({1, 1, 1, 1})
                            .set_data_type(fe::DataType_t::FLOAT));
  }
  static void Output(const Attributes& t, const fe::graph::Tensor_attributes& as,
                     fe::DataType_t type) {
    t->set_output(true)
        .set_uid(as.get_uid())
        .set_dim(as.get_dim())
        .set_stride(as.get_stride())
        .set_data_type(type);
  }
  static void OutputScalar(const Attributes& t, int64_t uid) {
    t->set_output(true)
        .set_uid(uid)
        .set_dim({1, 1, 1, 1})
        .set_stride({1, 1, 1, 1})
        .set_data_type(fe::DataType_t::FLOAT);
  }
  template <typename SdpaAttributes>
  SdpaAttributes Causal(const char* name) const {
    SdpaAttributes attributes;
    attributes.set_name(name)
        .set_attn_scale(1.0f / std::sqrt(static_cast<float>(problem.head_dim)))
        .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
    return attributes;
  }

  void AddForward() {
    const Fp8SdpaProblem& p = problem;
    const fe::DataType_t e4m3 = fe::DataType_t::FP8_E4M3;
    auto attributes = Causal<fe::graph::SDPA_fp8_attributes>("fp8 attention");
    attributes.set_generate_stats(true);
    auto [out, statistics, amax_s, amax_o] = graph.sdpa_fp8(
        Input(kSdpaQ, p.heads, true, e4m3), Input(kSdpaK, p.groups, true, e4m3),
        Input(kSdpaV, p.groups, true, e4m3), Scalar(kDescaleQ), Scalar(kDescaleK),
        Scalar(kDescaleV), Scalar(kDescaleS), Scalar(kScaleS), Scalar(kScaleO), attributes);
    Output(out, Describe(kSdpaOut, p.heads, false),
           p.bf16_results ? fe::DataType_t::BFLOAT16 : e4m3);
    Output(statistics, DescribeStatistics(), fe::DataType_t::FLOAT);
    OutputScalar(amax_s, kAmaxS);
    OutputScalar(amax_o, kAmaxO);
  }

  void AddBackward() {
    const Fp8SdpaProblem& p = problem;
    const fe::DataType_t e4m3 = fe::DataType_t::FP8_E4M3, gradient = TypeOf(p.gradients);
    auto attributes = Causal<fe::graph::SDPA_fp8_backward_attributes>("fp8 attention backward");
    attributes.set_deterministic_algorithm(p.deterministic);
    auto [dq, dk, dv, amax_dq, amax_dk, amax_dv, amax_dp] = graph.sdpa_fp8_backward(
        Input(kSdpaQ, p.heads, true, e4m3), Input(kSdpaK, p.groups, true, e4m3),
        Input(kSdpaV, p.groups, true, e4m3), Input(kSdpaOut, p.heads, false, e4m3),
        Input(kSdpaDout, p.heads, false, gradient), graph.tensor(DescribeStatistics()),
        Scalar(kDescaleQ), Scalar(kDescaleK), Scalar(kDescaleV), Scalar(kDescaleO),
        Scalar(kDescaleDo), Scalar(kDescaleS), Scalar(kDescaleDp), Scalar(kScaleS),
        Scalar(kScaleDq), Scalar(kScaleDk), Scalar(kScaleDv), Scalar(kScaleDp), attributes);
    OutputGradients(dq, dk, dv, p.bf16_results ? fe::DataType_t::BFLOAT16 : gradient);
    OutputScalar(amax_dq, kAmaxDq);
    OutputScalar(amax_dk, kAmaxDk);
    OutputScalar(amax_dv, kAmaxDv);
    OutputScalar(amax_dp, kAmaxDp);
  }

  void AddBf16Backward() {
    const Fp8SdpaProblem& p = problem;
    const fe::DataType_t bf16 = fe::DataType_t::BFLOAT16;
    auto attributes = Causal<fe::graph::SDPA_backward_attributes>("attention backward");
    attributes.set_deterministic_algorithm(p.deterministic);
    auto [dq, dk, dv] = graph.sdpa_backward(
        Input(kSdpaQ, p.heads, true, bf16), Input(kSdpaK, p.groups, true, bf16),
        Input(kSdpaV, p.groups, true, bf16), Input(kSdpaOut, p.heads, false, bf16),
        Input(kSdpaDout, p.heads, false, bf16), graph.tensor(DescribeStatistics()), attributes);
    OutputGradients(dq, dk, dv, bf16);
  }

  void OutputGradients(const Attributes& dq, const Attributes& dk, const Attributes& dv,
                       fe::DataType_t type) {
    Output(dq, Describe(kSdpaDq, problem.heads, true), type);
    Output(dk, Describe(kSdpaDk, problem.groups, true), type);
    Output(dv, Describe(kSdpaDv, problem.groups, true), type);
  }

  StatusOr<std::string> ConfigOf(int64_t index) const {
    int64_t engine = -1;
    std::unordered_map<fe::KnobType_t, int64_t> knobs;
    if (fe::error_t error = graph.get_engine_and_knobs_at_index(index, engine, knobs);
        !error.is_good())
      return Internal("cuDNN attention engine: {}", error.get_message());
    std::map<int64_t, int64_t> sorted;
    for (const auto& [knob, value] : knobs) sorted[static_cast<int64_t>(knob)] = value;
    std::string text = std::to_string(engine);
    for (const auto& [knob, value] : sorted) text += fmt::format(" {}:{}", knob, value);
    return text;
  }

  Fp8SdpaProblem problem;
  fe::graph::Graph graph;
};

Fp8Sdpa::~Fp8Sdpa() = default;

StatusOr<std::unique_ptr<Fp8Sdpa>> Fp8Sdpa::Build(Context* context, const Fp8SdpaProblem& problem,
                                                  size_t max_plans) try {
  if (problem.bf16 && !problem.backward)
    return InvalidArgument("fp8 attention: a bf16 graph forward; expected backward");
  std::unique_ptr<Fp8Sdpa> out(new Fp8Sdpa);
  out->context_ = context;
  TE_ASSIGN_OR_RETURN(cuda::CudaState * state, cuda::GetCudaState(context->exec()));
  TE_ASSIGN_OR_RETURN(out->handle_, state->Cudnn(cuda::StreamOf(context->exec())));
  for (int i = 0; i < 2; ++i) out->graphs_.push_back(std::make_unique<Graph>(problem));
  // Plans that the library does not mark come first; a mark is known by what is left out with it.
  Status status = out->AddPlans(true, max_plans);
  if (out->plans_.size() < max_plans) {
    const Status all = out->AddPlans(false, max_plans);
    if (status.ok() || !all.ok()) status = all;
  }
  if (out->plans_.empty()) return status.ok() ? Unsupported("no plan") : status;
  size_t bytes = 1;
  for (const Fp8SdpaPlan& plan : out->plans_) bytes = std::max(bytes, plan.workspace_bytes);
  TE_ASSIGN_OR_RETURN(out->workspace_,
                      context->NewTensor(DType::kUInt8, {static_cast<int64_t>(bytes)}));
  return out;
} catch (const std::exception& e) {
  return Internal("cuDNN: {}", e.what());
}

// The error of the last plan that could not be had, if there is any.
Status Fp8Sdpa::AddPlans(bool leave_out_marked, size_t max_plans) {
  const size_t which = leave_out_marked ? 0 : 1;
  Graph& owner = *graphs_[which];
  fe::graph::Graph& graph = owner.graph;
  fe::error_t error = graph.validate();
  if (error.is_good()) error = graph.build_operation_graph(handle_);
  if (!error.is_good()) return Unsupported("{}", error.get_message());
  error = graph.create_execution_plans({fe::HeurMode_t::A});
  const fe::error_t fallback = graph.create_execution_plans({fe::HeurMode_t::FALLBACK});
  if (!error.is_good() && !fallback.is_good()) return Unsupported("{}", error.get_message());
  if (leave_out_marked) graph.deselect_numeric_notes({fe::NumericalNote_t::NONDETERMINISTIC});
  Status status;
  const int64_t count = graph.get_execution_plan_count();
  for (int64_t i = 0; i < count && plans_.size() < max_plans; ++i) {
    TE_ASSIGN_OR_RETURN(std::string config, owner.ConfigOf(i));
    const auto same = [&](const Fp8SdpaPlan& plan) { return plan.config == config; };
    if (std::any_of(plans_.begin(), plans_.end(), same)) continue;
    if (error = graph.build_plan_at_index(i); !error.is_good()) {
      status = Unsupported("plan {}: {}", config, error.get_message());
      continue;
    }
    int64_t bytes = 0;
    if (error = graph.get_workspace_size_plan_at_index(i, bytes); !error.is_good()) {
      status = Internal("plan {}: {}", config, error.get_message());
      continue;
    }
    if (bytes > kMaxWorkspace) {
      status = Unsupported("plan {}: {} bytes of workspace", config, bytes);
      continue;
    }
    plans_.push_back({.graph = which,
                      .index = i,
                      .config = std::move(config),
                      .workspace_bytes = static_cast<size_t>(bytes),
                      .marked = !leave_out_marked});
  }
  return status;
}

Status Fp8Sdpa::Run(size_t plan, SdpaPointers& pointers) try {
  const Fp8SdpaPlan& p = plans_[plan];
  fe::error_t error = graphs_[p.graph]->graph.execute_plan_at_index(
      handle_, pointers, workspace_.view().data(), p.index);
  return error.is_good() ? OkStatus() : Internal("cuDNN: {}", error.get_message());
} catch (const std::exception& e) {
  return Internal("cuDNN: {}", e.what());
}

}  // namespace te::bench
