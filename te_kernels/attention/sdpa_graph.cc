#include "te_kernels/attention/sdpa_graph.h"

#include <cuda_runtime_api.h>
#include <cudnn_frontend.h>

#include <algorithm>
#include <charconv>
#include <exception>
#include <map>
#include <sstream>
#include <utility>

#include "te_kernels/cuda/choices_header.h"
#include "te_kernels/cuda/cuda_status.h"

namespace te {
namespace {

namespace fe = cudnn_frontend;

// A plan takes up to seconds to compile.
constexpr int64_t kMaxPlans = 16;
constexpr size_t kMaxKnobPlans = 64;
// What another plan's workspace may take beyond that of the library's first choice.
constexpr size_t kMoreWorkspace = size_t{64} << 20;

Status ToStatus(fe::error_t error, const char* what) {
  if (error.is_good()) return OkStatus();
  return Internal("{}: {}", what, error.get_message());
}

// An engine and its knobs.
struct Config {
  int64_t engine = -1;
  std::map<int64_t, int64_t> knobs;

  std::string ToString() const {
    std::string text = std::to_string(engine);
    for (const auto& [knob, value] : knobs) text += fmt::format(" {}:{}", knob, value);
    return text;
  }
  static bool Parse(const std::string& text, Config* config) {
    const char* at = text.data();
    const char* const end = at + text.size();
    const auto number = [&at, end](int64_t* value) {
      const auto [next, error] = std::from_chars(at, end, *value);
      at = next;
      return error == std::errc();
    };
    if (!number(&config->engine)) return false;
    while (at != end) {
      int64_t knob = 0, value = 0;
      if (*at++ != ' ' || !number(&knob) || at == end || *at++ != ':' || !number(&value))
        return false;
      config->knobs[knob] = value;
    }
    return true;
  }
};

StatusOr<Config> ConfigOf(const fe::graph::Graph& graph, int64_t index) {
  Config config;
  std::unordered_map<fe::KnobType_t, int64_t> knobs;
  TE_RETURN_IF_ERROR(ToStatus(graph.get_engine_and_knobs_at_index(index, config.engine, knobs),
                              "cuDNN attention engine"));
  for (const auto& [knob, value] : knobs) config.knobs[static_cast<int64_t>(knob)] = value;
  return config;
}

// What a file of choices is valid for.
StatusOr<std::string> HeaderOf() {
  TE_ASSIGN_OR_RETURN(const std::string card, cuda::CardAndDriver());
  return cuda::ChoicesHeader(kSdpaChoicesTitle, card, "cudnn", SdpaVersion());
}

}  // namespace

struct SdpaGraph::Graph {
  explicit Graph(const SdpaProblem& p) : problem(p) { AddSdpaNodes(p, &graph); }

  SdpaProblem problem;
  fe::graph::Graph graph;
};

SdpaGraph::SdpaGraph() = default;
SdpaGraph::~SdpaGraph() = default;

StatusOr<std::unique_ptr<SdpaGraph>> SdpaGraph::Build(const SdpaProblem& problem,
                                                      cudnnHandle_t handle,
                                                      const std::string& pinned) try {
  std::unique_ptr<SdpaGraph> out(new SdpaGraph);
  Status status =
      out->BuildFirst(problem, handle, problem.deterministic ? Take::kUnmarked : Take::kAll);
  if (problem.deterministic && status.code() == StatusCode::kUnsupported)
    status = out->BuildFirst(problem, handle, Take::kOfFirstEngine);
  TE_RETURN_IF_ERROR(status);
  if (!pinned.empty()) {
    const bool known = pinned == out->plans_.front().config;
    out->pinned_ = known || out->OfferConfig(pinned).ok();
    out->chosen_ = out->plans_.size() - 1;
  }
  return out;
} catch (const std::exception& e) {
  return Internal("cuDNN attention: {}", e.what());
}

// Builds the library's first choice.
Status SdpaGraph::BuildFirst(const SdpaProblem& problem, cudnnHandle_t handle, Take take) {
  graph_ = std::make_unique<Graph>(problem);
  take_ = take;
  fe::graph::Graph& graph = graph_->graph;
  fe::error_t error = graph.validate();
  if (error.is_good()) error = graph.build_operation_graph(handle);
  if (error.is_good()) error = graph.create_execution_plans({fe::HeurMode_t::A});
  if (!error.is_good()) return Unsupported("cuDNN attention: {}", error.get_message());
  LeaveOutMarked();
  Status status = Unsupported("cuDNN attention: no plan");
  for (int64_t i = 0; i < graph.get_execution_plan_count() && !status.ok(); ++i) status = Offer(i);
  return status;
}

// After each call that lengthens the graph's list of plans.
void SdpaGraph::LeaveOutMarked() {
  if (take_ == Take::kUnmarked)
    graph_->graph.deselect_numeric_notes({fe::NumericalNote_t::NONDETERMINISTIC});
}

// Builds plan `index` and takes it into the list. kUnsupported: not one to choose.
Status SdpaGraph::Offer(int64_t index) {
  fe::graph::Graph& graph = graph_->graph;
  TE_ASSIGN_OR_RETURN(const Config config, ConfigOf(graph, index));
  SdpaPlan plan = {.index = index, .config = config.ToString(), .workspace_bytes = 1};
  for (const SdpaPlan& other : plans_)
    if (other.config == plan.config) return Unsupported("cuDNN attention: {} twice", plan.config);
  if (take_ == Take::kOfFirstEngine && !plans_.empty()) {
    TE_ASSIGN_OR_RETURN(const Config first, ConfigOf(graph, plans_.front().index));
    if (config.engine != first.engine)
      return Unsupported("cuDNN attention: {} may be nondeterministic", plan.config);
  }
  if (fe::error_t error = graph.build_plan_at_index(index); !error.is_good())
    return Unsupported("cuDNN attention: {}", error.get_message());
  int64_t bytes = 0;
  TE_RETURN_IF_ERROR(
      ToStatus(graph.get_workspace_size_plan_at_index(index, bytes), "cuDNN attention workspace"));
  plan.workspace_bytes = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  if (!plans_.empty() && plan.workspace_bytes > plans_.front().workspace_bytes + kMoreWorkspace)
    return Unsupported("cuDNN attention: {} takes {} bytes", plan.config, plan.workspace_bytes);
  plans_.push_back(std::move(plan));
  return OkStatus();
}

// Offers the plan that `text` names, which the heuristics need not have offered.
Status SdpaGraph::OfferConfig(const std::string& text) {
  Config config;
  if (!Config::Parse(text, &config))
    return CorruptData("cuDNN attention: plan '{}'; expected ENGINE KNOB:VALUE ...", text);
  std::unordered_map<fe::KnobType_t, int64_t> knobs;
  for (const auto& [knob, value] : config.knobs) knobs[static_cast<fe::KnobType_t>(knob)] = value;
  fe::graph::Graph& graph = graph_->graph;
  if (fe::error_t error = graph.create_execution_plan(config.engine, knobs); !error.is_good()) {
    return Unsupported("cuDNN attention: plan {}: {}", text, error.get_message());
  }
  LeaveOutMarked();
  return Offer(graph.get_execution_plan_count() - 1);
}

Status SdpaGraph::Run(const Exec& exec, cudnnHandle_t handle, SdpaPointers& pointers) {
  return RunPlan(exec, handle, pointers, plans_[chosen_]);
}

Status SdpaGraph::RunPlan(const Exec& exec, cudnnHandle_t handle, SdpaPointers& pointers,
                          const SdpaPlan& plan) try {
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(void* workspace, exec.scratch->Allocate(plan.workspace_bytes));
  return ToStatus(graph_->graph.execute_plan_at_index(handle, pointers, workspace, plan.index),
                  "cuDNN attention");
} catch (const std::exception& e) {
  return Internal("cuDNN attention: {}", e.what());
}

Status SdpaGraph::TimeAndChoose(const Exec& exec, cudnnHandle_t handle, SdpaPointers& pointers,
                                cuda::CandidateSearch* search) {
  // Plans differ by nothing or by a third: any clock tells them apart.
  const StatusOr<std::vector<float>> milliseconds = search->Time(
      exec, {.count = static_cast<int>(plans_.size()), .flops = graph_->problem.flops()},
      [&](int index) {
        return RunPlan(exec, handle, pointers, plans_[static_cast<size_t>(index)]);
      });
  if (!milliseconds.ok()) return OkStatus();  // the run that follows says what is wrong
  for (size_t i = 0; i < plans_.size(); ++i) plans_[i].milliseconds = (*milliseconds)[i];
  chosen_ = static_cast<size_t>(cuda::FastestOf(*milliseconds));
  return OkStatus();
}

Status SdpaGraph::Tune(const Exec& exec, cudnnHandle_t handle, SdpaPointers& pointers,
                       cuda::CandidateSearch* search) try {
  if (pinned_) return OkStatus();
  fe::graph::Graph& graph = graph_->graph;
  // Behind the heuristics' own; that there are none is no error.
  static_cast<void>(graph.create_execution_plans({fe::HeurMode_t::FALLBACK}));
  LeaveOutMarked();
  const int64_t offered = std::min(graph.get_execution_plan_count(), kMaxPlans);
  // Half of the time is for timing them.
  const double half = search->MillisecondsLeft() / 2;
  for (int64_t i = plans_.front().index + 1; i < offered && search->MillisecondsLeft() > half; ++i)
    Offer(i).IgnoreError();
  if (plans_.size() == 1) return OkStatus();
  return TimeAndChoose(exec, handle, pointers, search);
} catch (const std::exception& e) {
  return Internal("cuDNN attention: {}", e.what());
}

Status SdpaGraph::TuneKnobs(const Exec& exec, cudnnHandle_t handle, SdpaPointers& pointers,
                            cuda::CandidateSearch* search) try {
  fe::graph::Graph& graph = graph_->graph;
  TE_ASSIGN_OR_RETURN(const Config base, ConfigOf(graph, plans_[chosen_].index));
  std::vector<fe::Knob> knobs;
  TE_RETURN_IF_ERROR(
      ToStatus(graph.get_knobs_for_engine(base.engine, knobs), "cuDNN attention knobs"));
  for (const fe::Knob& knob : knobs) {
    const int64_t step = std::max<int64_t>(knob.stride, 1);
    for (int64_t value = knob.minValue; value <= knob.maxValue; value += step) {
      if (plans_.size() == kMaxKnobPlans) break;
      Config config = base;
      config.knobs[static_cast<int64_t>(knob.type)] = value;
      OfferConfig(config.ToString()).IgnoreError();  // most values fit no kernel
    }
  }
  return TimeAndChoose(exec, handle, pointers, search);
} catch (const std::exception& e) {
  return Internal("cuDNN attention: {}", e.what());
}

SdpaCache* SdpaCache::Of(cuda::CudaState* state) {
  if (state->attention_cache == nullptr) state->attention_cache = std::make_unique<SdpaCache>();
  return static_cast<SdpaCache*>(state->attention_cache.get());
}

size_t SdpaVersion() { return cudnnGetVersion(); }

StatusOr<std::string> SaveSdpaChoices(cuda::CudaState* state, WhichChoices which) {
  const SdpaCache* cache = SdpaCache::Of(state);
  std::map<std::string, std::string> choices;
  if (which == WhichChoices::kOfRun)
    for (const std::string& key : cache->own) choices[key] = cache->pinned.at(key);
  for (const auto& [key, graph] : cache->graphs)
    if (graph != nullptr && (which == WhichChoices::kOfRun || cache->found.contains(key)))
      choices[key] = graph->plans()[graph->chosen()].config;
  if (choices.empty()) return std::string();
  TE_ASSIGN_OR_RETURN(std::string text, HeaderOf());
  text += '\n';
  for (const auto& [key, config] : choices) text += fmt::format("{} : {}\n", key, config);
  return text;
}

StatusOr<std::optional<SdpaChoices>> ParseSdpaChoices(cuda::CudaState* state,
                                                      const std::string& text, PinAs as) {
  std::istringstream lines(text);
  std::string line;
  TE_ASSIGN_OR_RETURN(const std::string header, HeaderOf());
  if (!std::getline(lines, line) || !cuda::ChoicesHold(line, header, state->num_sms(), as))
    return std::optional<SdpaChoices>();
  SdpaChoices choices;
  for (int number = 2; std::getline(lines, line); ++number) {
    const size_t colon = line.rfind(" : ");
    Config config;
    if (colon == std::string::npos || !Config::Parse(line.substr(colon + 3), &config)) {
      return CorruptData(
          "cuDNN attention choices, line {}: '{:.300}'; expected 'PROBLEM : ENGINE KNOB:VALUE ...'",
          number, line);
    }
    choices[line.substr(0, colon)] = line.substr(colon + 3);
  }
  return std::optional<SdpaChoices>(std::move(choices));
}

void PinSdpaChoices(cuda::CudaState* state, const SdpaChoices& choices, PinAs as) {
  SdpaCache* cache = SdpaCache::Of(state);
  for (const auto& [key, config] : choices) {
    if (as == PinAs::kOwn) {
      cache->pinned[key] = config;
      cache->own.insert(key);
    } else {
      cache->pinned.try_emplace(key, config);
    }
  }
}

}  // namespace te
