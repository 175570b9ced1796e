// cuDNN's graphs of scaled dot-product attention, and the choice among the execution plans that the
// library offers for one, timed once a shape: deterministic ones only, unless the problem says
// otherwise.
#pragma once

#include <cudnn.h>

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "te_kernels/attention/sdpa_nodes.h"
#include "te_kernels/base/exec.h"
#include "te_kernels/cuda/cuda_state.h"
#include "te_kernels/cuda/time_candidates.h"
#include "te_kernels/device/pin_as.h"

namespace te {

// One of cuDNN's ways to run a graph.
struct SdpaPlan {
  int64_t index;       // in the graph's list
  std::string config;  // engine and knobs, as numbers: "6 7:2 12:0"
  size_t workspace_bytes;
  float milliseconds = 0;  // when it was last timed
};

// One graph, built for one problem. A deterministic problem's plans are deterministic: the backward
// graph asks for it, and engines that the library marks as nondeterministic are left out. Where
// that leaves none (the mark is an engine's, whatever the graph asks of it), all plans are of the
// engine that the library puts first: knobs change nothing but speed.
class SdpaGraph {
 public:
  // kUnsupported when cuDNN has no engine for it. `pinned`: a plan's config, or empty; one that the
  // library refuses is as good as none.
  static StatusOr<std::unique_ptr<SdpaGraph>> Build(const SdpaProblem& problem,
                                                    cudnnHandle_t handle,
                                                    const std::string& pinned);
  ~SdpaGraph();
  SdpaGraph(const SdpaGraph&) = delete;
  SdpaGraph& operator=(const SdpaGraph&) = delete;

  // Enqueues the chosen plan.
  Status Run(const Exec& exec, cudnnHandle_t handle, SdpaPointers& pointers);

  // Times what the library offers, as far as `search` has time to make it, and chooses the fastest.
  // The operands' outputs are overwritten, with what any plan computes of the inputs. Without
  // effect on a pinned plan.
  Status Tune(const Exec& exec, cudnnHandle_t handle, SdpaPointers& pointers,
              cuda::CandidateSearch* search);

  // Adds the chosen plan's variants with one knob changed, and times and chooses as Tune does: for
  // benchmarks, that ask whether the library's heuristics miss something.
  Status TuneKnobs(const Exec& exec, cudnnHandle_t handle, SdpaPointers& pointers,
                   cuda::CandidateSearch* search);

  // The library's first choice is plans().front().
  const std::vector<SdpaPlan>& plans() const { return plans_; }
  size_t chosen() const { return chosen_; }
  void Choose(size_t plan) { chosen_ = plan; }
  bool pinned() const { return pinned_; }

 private:
  struct Graph;

  SdpaGraph();
  // Which of the library's plans may be chosen.
  enum class Take { kUnmarked, kOfFirstEngine, kAll };

  Status BuildFirst(const SdpaProblem& problem, cudnnHandle_t handle, Take take);
  void LeaveOutMarked();
  Status Offer(int64_t index);
  Status OfferConfig(const std::string& config);
  Status TimeAndChoose(const Exec& exec, cudnnHandle_t handle, SdpaPointers& pointers,
                       cuda::CandidateSearch* search);
  Status RunPlan(const Exec& exec, cudnnHandle_t handle, SdpaPointers& pointers,
                 const SdpaPlan& plan);

  std::unique_ptr<Graph> graph_;
  std::vector<SdpaPlan> plans_;
  size_t chosen_ = 0;
  bool pinned_ = false;
  Take take_ = Take::kUnmarked;
};

// The graphs of one CudaState.
class SdpaCache : public cuda::OperationCache {
 public:
  static SdpaCache* Of(cuda::CudaState* state);

  // Null: cuDNN refused the problem, in these words.
  std::unordered_map<std::string, std::unique_ptr<SdpaGraph>> graphs;
  std::unordered_map<std::string, std::string> refusals;
  std::unordered_map<std::string, std::string> pinned;  // a plan's config for a problem's key
  std::unordered_set<std::string> own;    // of those pinned, the run's own (PinAs::kOwn)
  std::unordered_set<std::string> found;  // of the graphs, those whose plans were timed here
  // For benchmarks: new graphs of large problems choose among all plans by timing them, with
  // tune_knobs among those of other knobs, too; the graph that ran.
  bool tune = false;
  bool tune_knobs = false;
  SdpaGraph* last = nullptr;
};

// The choices made so far, as text: one line a problem, under a header that starts with
// kSdpaChoicesTitle and names the card, driver and library (choices_header.h); empty when there is
// none.
inline constexpr const char* kSdpaChoicesTitle = "te cudnn attention choices";
StatusOr<std::string> SaveSdpaChoices(cuda::CudaState* state, WhichChoices which);
// And back. Nothing: text of another card or library, which is ignored as a whole. kCorruptData: no
// such text.
using SdpaChoices = std::unordered_map<std::string, std::string>;
StatusOr<std::optional<SdpaChoices>> ParseSdpaChoices(cuda::CudaState* state,
                                                      const std::string& text, PinAs as);
// A pinned problem is never timed again.
void PinSdpaChoices(cuda::CudaState* state, const SdpaChoices& choices, PinAs as);
size_t SdpaVersion();

}  // namespace te
