// cuDNN's FP8 attention (and the BF16 backward pass that need not repeat its bits) as graphs with
// every execution plan that the library offers: for measurements.
//
// With one scale a tensor, code = x * scale, descale = 1 / scale, P the softmax:
//   forward   q, k, v, P, out in E4M3; statistics (log-sum-exp) in float32
//   backward  dout, dP, dq, dk, dv in E5M2, or E4M3
// Each amax is of the values before their scale. Source: cudnn-frontend's sdpa_fp8 and
// sdpa_fp8_backward nodes.
#pragma once

#include <cudnn.h>

#include <memory>
#include <string>
#include <vector>

#include "te_core/context.h"
#include "te_kernels/attention/sdpa_graph.h"

namespace te::bench {

// float32 scalars in device memory, beside SdpaTensor's tensors.
enum Fp8SdpaScalar : int64_t {
  kDescaleQ = 101,
  kDescaleK,
  kDescaleV,
  kDescaleS,
  kDescaleO,
  kDescaleDo,
  kDescaleDp,
  kScaleS,
  kScaleO,
  kScaleDp,
  kScaleDq,
  kScaleDk,
  kScaleDv,
  kAmaxS,
  kAmaxO,
  kAmaxDp,
  kAmaxDq,
  kAmaxDk,
  kAmaxDv,
};

// Causal; [B, S, n, d] tensors.
struct Fp8SdpaProblem {
  int64_t batch, sequence, heads, groups, head_dim;
  bool backward = false;
  bool deterministic = false;  // what the backward graph asks for
  bool packed = false;         // q, k, v as slices of one buffer, and their gradients likewise
  bool bf16_results = false;   // out, or dq, dk and dv
  bool bf16 = false;           // everything; backward only
  QuantFormat gradients = QuantFormat::kFloat8E5M2;
};

struct Fp8SdpaPlan {
  size_t graph = 0;
  int64_t index = 0;
  std::string config;  // engine and knobs, as numbers: "6 7:2 12:0"
  size_t workspace_bytes = 0;
  bool marked = false;  // by the library, as one that may not repeat its bits
};

// Thread-compatible; the context must outlive it.
class Fp8Sdpa {
 public:
  // Up to `max_plans` plans. kUnsupported with the library's words when there is none.
  static StatusOr<std::unique_ptr<Fp8Sdpa>> Build(Context* context, const Fp8SdpaProblem& problem,
                                                  size_t max_plans);
  ~Fp8Sdpa();
  Fp8Sdpa(const Fp8Sdpa&) = delete;
  Fp8Sdpa& operator=(const Fp8Sdpa&) = delete;

  const std::vector<Fp8SdpaPlan>& plans() const { return plans_; }
  // Enqueues plans()[plan].
  Status Run(size_t plan, SdpaPointers& pointers);

 private:
  struct Graph;
  Fp8Sdpa() = default;
  Status AddPlans(bool leave_out_marked, size_t max_plans);

  Context* context_ = nullptr;
  cudnnHandle_t handle_ = nullptr;
  std::vector<std::unique_ptr<Graph>> graphs_;
  std::vector<Fp8SdpaPlan> plans_;
  Tensor workspace_;
};

}  // namespace te::bench
