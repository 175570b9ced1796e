#include "te_kernels/gemm/cublaslt_matmul.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <map>
#include <memory>
#include <sstream>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "te_kernels/cuda/choices_header.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/cuda/time_candidates.h"
#include "te_kernels/gemm/cublaslt_plan.h"
#include "te_kernels/gemm/lt_kin.h"

namespace te {
namespace {

constexpr int kMaxCandidates = 64;
constexpr const char* kTitle = "te cublasLt choices";
// Below this a wrong choice costs microseconds.
constexpr double kMinTunedFlops = 2e9;

class LtCache : public cuda::OperationCache {
 public:
  std::unordered_map<std::string, std::unique_ptr<LtPlan>> plans;
  // Of Exec::once, chosen without a look.
  std::unordered_map<std::string, std::unique_ptr<LtPlan>> plans_of_once;
  std::unordered_map<std::string, LtAlgorithm> pinned;
  std::unordered_set<std::string> own;    // of those pinned, the run's own (PinAs::kOwn)
  std::unordered_set<std::string> found;  // of the plans, those that were timed here
  // The same algorithms on fewer multiprocessors. Null: the library does not take one so.
  std::map<std::pair<const LtPlan*, int>, std::unique_ptr<LtPlan>> on_fewer_sms;
};

LtCache* CacheOf(cuda::CudaState* state) {
  if (state->gemm_cache == nullptr) state->gemm_cache = std::make_unique<LtCache>();
  return static_cast<LtCache*>(state->gemm_cache.get());
}

// A product of a training step is as long in one of its dimensions as the step has tokens, and for
// each weight the step's products take 6 FLOP a token while AdamW moves 14 bytes or more: at 2048
// tokens 20% of the step, at 4096, where it runs beside the products, none (bench/notes.md,
// section 17).
cuda::StepClock ClockOf(const LtProblem& problem) {
  constexpr int64_t kTokensAtTheLimit = 4096;
  return std::min({problem.m, problem.n, problem.k}) < kTokensAtTheLimit
             ? cuda::StepClock::kBetween
             : cuda::StepClock::kAtTheLimit;
}

// The choice of the problem that is most like this one, `furthest` away at most; null: none is.
const LtAlgorithm* ChoiceOfKin(const LtCache& cache, const std::string& key, LtTokens tokens,
                               double furthest) {
  const LtAlgorithm* choice = nullptr;
  double nearest = 0;
  const auto offer = [&](const std::string& other, const LtAlgorithm& config) {
    const std::optional<double> distance = LtDistance(key, other, tokens);
    if (!distance || *distance > furthest || (choice != nullptr && *distance >= nearest)) return;
    choice = &config;
    nearest = *distance;
  };
  for (const std::string& other : cache.found) offer(other, cache.plans.at(other)->config());
  for (const auto& [other, config] : cache.pinned) offer(other, config);
  return choice;
}

// By a look from cold at `candidates`, of which the last one is the choice of a problem of kin.
// That was chosen where products run: it is taken unless another one is faster by more than the
// energy that it may save.
size_t ChooseBesideKin(const std::vector<float>& milliseconds) {
  constexpr float kWorthMore = 1.03f;
  const auto fastest = static_cast<size_t>(cuda::FastestOf(milliseconds));
  return milliseconds.back() <= kWorthMore * milliseconds[fastest] ? milliseconds.size() - 1
                                                                   : fastest;
}

// Sets `*searched` where several candidates were timed.
Status ChooseAlgorithm(const Exec& exec, cuda::CudaState* state, const LtMatmulArgs& args,
                       LtTokens tokens, void* workspace, LtPlan* plan, bool* searched) {
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  TE_RETURN_IF_ERROR(cuda::ToStatus(cudaStreamIsCapturing(cuda::StreamOf(exec), &capturing),
                                    "cudaStreamIsCapturing"));
  const LtProblem& problem = plan->problem();
  const bool timed =
      problem.flops() >= kMinTunedFlops && !exec.once && capturing == cudaStreamCaptureStatusNone;
  TE_ASSIGN_OR_RETURN(auto candidates,
                      plan->Candidates(state->cublas_lt(), timed ? kMaxCandidates : 1));
  if (!timed || candidates.size() == 1) return plan->Choose(candidates.front());
  *searched = true;
  cuda::SearchSession* session = cuda::SearchSession::Of(state);
  cuda::CandidateSearch search(session, "matmul " + problem.ToString());
  const LtAlgorithm* config =
      ChoiceOfKin(*CacheOf(state), problem.ToString(), tokens, session->thorough() ? 0 : 1);
  StatusOr<LtCandidate> of_kin = Status(StatusCode::kNotFound, "");
  if (config != nullptr) of_kin = plan->Rebuild(state->cublas_lt(), *config);
  if (of_kin.ok()) candidates.push_back(*of_kin);
  // Products accumulate: the trial runs write a d of their own.
  const ArenaScope scope(exec.scratch);
  const int64_t extent = (problem.batch - 1) * problem.distance_d + problem.n * problem.ldd;
  TE_ASSIGN_OR_RETURN(const TensorView trial, exec.scratch->Allocate(problem.result, {extent}));
  TE_RETURN_IF_ERROR(cuda::ToStatus(
      cudaMemsetAsync(trial.data(), 0, trial.bytes(), cuda::StreamOf(exec)), "cudaMemsetAsync"));
  TE_ASSIGN_OR_RETURN(const std::vector<float> milliseconds,
                      search.Time(exec,
                                  {.count = static_cast<int>(candidates.size()),
                                   .flops = problem.flops(),
                                   .clock = ClockOf(problem),
                                   .from_cold = of_kin.ok()},
                                  [&](int index) {
                                    return plan->Run(exec, state->cublas_lt(), args, trial.data(),
                                                     trial.data(),
                                                     candidates[static_cast<size_t>(index)],
                                                     workspace, kLtWorkspaceBytes);
                                  }));
  const size_t chosen = of_kin.ok() ? ChooseBesideKin(milliseconds)
                                    : static_cast<size_t>(cuda::FastestOf(milliseconds));
  return plan->Choose(candidates[chosen]);
}

// The plan of the problem, made and chosen at its first use.
StatusOr<const LtPlan*> PlanOf(const Exec& exec, cuda::CudaState* state, const LtProblem& problem,
                               const LtMatmulArgs& args, LtTokens tokens, void* workspace) {
  LtCache* cache = CacheOf(state);
  const std::string key = problem.ToString();
  if (const auto found = cache->plans.find(key); found != cache->plans.end())
    return found->second.get();
  const auto pinned = cache->pinned.find(key);
  auto& plans = exec.once && pinned == cache->pinned.end() ? cache->plans_of_once : cache->plans;
  if (const auto found = plans.find(key); found != plans.end()) return found->second.get();
  auto plan = std::make_unique<LtPlan>(problem);
  TE_RETURN_IF_ERROR(plan->Create());
  TE_RETURN_IF_ERROR(plan->Bind(args));
  const StatusOr<LtCandidate> choice = pinned == cache->pinned.end()
                                           ? Status(StatusCode::kNotFound, "")
                                           : plan->Rebuild(state->cublas_lt(), pinned->second);
  // A choice that the library refuses is as good as none.
  bool searched = false;
  TE_RETURN_IF_ERROR(
      choice.ok() ? plan->Choose(*choice)
                  : ChooseAlgorithm(exec, state, args, tokens, workspace, plan.get(), &searched));
  if (searched) cache->found.insert(key);
  return plans.emplace(key, std::move(plan)).first->second.get();
}

// The plan that leaves Exec::sm_margin multiprocessors free. It has the algorithm of the whole
// card's: one that was timed with fewer was slower in steps (bench/notes.md, section 16).
StatusOr<const LtPlan*> WithMargin(const Exec& exec, cuda::CudaState* state, const LtPlan* whole,
                                   const LtMatmulArgs& args) {
  if (exec.sm_margin <= 0 || exec.sm_margin > state->num_sms() / 4) return whole;
  const int sms = state->num_sms() - exec.sm_margin;
  auto& plans = CacheOf(state)->on_fewer_sms;
  auto found = plans.find({whole, sms});
  if (found == plans.end()) {
    auto plan = std::make_unique<LtPlan>(whole->problem(), sms);
    TE_RETURN_IF_ERROR(plan->Create());
    TE_RETURN_IF_ERROR(plan->Bind(args));
    const StatusOr<LtCandidate> choice = plan->Rebuild(state->cublas_lt(), whole->config());
    if (choice.ok()) {
      TE_RETURN_IF_ERROR(plan->Choose(*choice));
    } else {
      plan.reset();
    }
    found = plans.emplace(std::pair(whole, sms), std::move(plan)).first;
  }
  return found->second == nullptr ? whole : found->second.get();
}

// What a file of choices is valid for.
StatusOr<std::string> HeaderOf() {
  TE_ASSIGN_OR_RETURN(const std::string card, cuda::CardAndDriver());
  return cuda::ChoicesHeader(kTitle, card, "cublasLt", LtVersion());
}

}  // namespace

Status RunLtMatmul(const Exec& exec, const LtMatmulArgs& args, const char* operation,
                   const char* orientation) {
  TE_ASSIGN_OR_RETURN(cuda::CudaState * state, cuda::GetCudaState(exec));
  const ConstTensorView c = args.beta != 0 && args.c.defined() ? args.c : ConstTensorView(args.d);
  TE_ASSIGN_OR_RETURN(const LtProblem problem, LtProblem::Of(args, c));
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(void* workspace, exec.scratch->Allocate(kLtWorkspaceBytes));
  const LtTokens tokens = std::string_view(orientation) == "wgrad" ? LtTokens::kK : LtTokens::kN;
  TE_ASSIGN_OR_RETURN(const LtPlan* plan, PlanOf(exec, state, problem, args, tokens, workspace));
  TE_ASSIGN_OR_RETURN(plan, WithMargin(exec, state, plan, args));
  size_t workspace_bytes = kLtWorkspaceBytes;
  if (void* counter = state->counters().Next(plan->chosen().workspace_bytes); counter != nullptr) {
    workspace = counter;
    workspace_bytes = cuda::RecordedCounters::kBytes;
  }
  TE_RETURN_IF_ERROR(plan->Run(exec, state->cublas_lt(), args, c.data(), args.d.data(),
                               plan->chosen(), workspace, workspace_bytes));
  if (exec.log != nullptr) {
    const int64_t operand_bytes = args.batch * (problem.m + problem.n) * problem.k *
                                  static_cast<int64_t>(SizeOf(problem.type_a));
    const int64_t result_bytes = args.batch * problem.m * problem.n *
                                 static_cast<int64_t>(SizeOf(problem.result)) *
                                 (problem.accumulate ? 2 : 1);
    Record(exec, operation, plan->name().c_str(), problem.type_b, operand_bytes + result_bytes,
           orientation);
  }
  return OkStatus();
}

size_t LtVersion() { return cublasLtGetVersion(); }

StatusOr<std::string> SaveLtChoices(cuda::CudaState* state, WhichChoices which) {
  const LtCache* cache = CacheOf(state);
  std::map<std::string, const LtAlgorithm*> choices;
  if (which == WhichChoices::kOfRun)
    for (const std::string& key : cache->own) choices[key] = &cache->pinned.at(key);
  for (const auto& [key, plan] : cache->plans)
    if (which == WhichChoices::kOfRun || cache->found.contains(key)) choices[key] = &plan->config();
  TE_ASSIGN_OR_RETURN(std::string text, HeaderOf());
  text += '\n';
  for (const auto& [key, config] : choices)
    text += fmt::format("{} : {}\n", key, config->ToString());
  return text;
}

StatusOr<std::optional<LtChoices>> ParseLtChoices(cuda::CudaState* state, const std::string& text,
                                                  PinAs as) {
  std::istringstream lines(text);
  std::string line;
  TE_ASSIGN_OR_RETURN(const std::string header, HeaderOf());
  std::getline(lines, line);
  if (!line.starts_with(kTitle))
    return CorruptData("line 1: '{:.100}'; expected '{} ...'", line, kTitle);
  if (!cuda::ChoicesHold(line, header, state->num_sms(), as)) return std::optional<LtChoices>();
  LtChoices choices;
  for (int number = 2; std::getline(lines, line); ++number) {
    const size_t colon = line.rfind(" : ");
    LtAlgorithm config;
    std::istringstream numbers(colon == std::string::npos ? "" : line.substr(colon + 3));
    if (!LtAlgorithm::Parse(numbers, &config) || !(numbers >> std::ws).eof()) {
      return CorruptData(
          "cublasLt choices, line {}: '{:.300}'; expected 'SHAPE : ' and nine numbers", number,
          line);
    }
    choices[line.substr(0, colon)] = config;
  }
  return std::optional<LtChoices>(std::move(choices));
}

void PinLtChoices(cuda::CudaState* state, const LtChoices& choices, PinAs as) {
  LtCache* cache = CacheOf(state);
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
