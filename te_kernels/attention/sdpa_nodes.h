// What cuDNN's graph of one attention computes: its tensors, scalars and the node between them.
#pragma once

#include <string>
#include <unordered_map>

#include "te_kernels/attention/attention_mask.h"
#include "te_kernels/base/quant_spec.h"
#include "te_kernels/base/view.h"

namespace cudnn_frontend::graph {
class Graph;
}

namespace te {

enum SdpaTensor : int64_t {
  kSdpaQ = 1,
  kSdpaK,
  kSdpaV,
  kSdpaOut,
  kSdpaLse,
  kSdpaDout,
  kSdpaDq,
  kSdpaDk,
  kSdpaDv,
  kSdpaLengthsQ,
  kSdpaLengthsKv,
  // float32 scalars of FP8 graphs, where descale is 1 / scale. cuDNN overwrites an amax.
  kSdpaDescaleQ,
  kSdpaDescaleK,
  kSdpaDescaleV,
  kSdpaDescaleS,
  kSdpaDescaleO,
  kSdpaDescaleDo,
  kSdpaDescaleDp,
  kSdpaScaleS,
  kSdpaScaleO,
  kSdpaScaleDp,
  kSdpaScaleDq,
  kSdpaScaleDk,
  kSdpaScaleDv,
  kSdpaAmaxS,
  kSdpaAmaxO,
  kSdpaAmaxDp,
  kSdpaAmaxDq,
  kSdpaAmaxDk,
  kSdpaAmaxDv,
};
using SdpaPointers = std::unordered_map<int64_t, void*>;

// Everything that a graph depends on.
struct SdpaProblem {
  ConstTensorView q, k, v, out, dout, lse, dq, dk, dv;  // dout and later: backward only
  AttentionMaskType mask;
  int64_t window_left;
  float scale;
  bool lengths;  // of right-padded sequences
  bool backward;
  bool deterministic = true;  // of a backward pass; forward ones always are
  bool fp8 = false;           // the views are of codes: E4M3, and of gradients `gradient_format`
  QuantFormat gradient_format = QuantFormat::kFloat8E5M2;

  std::string Key() const;  // of the deterministic one as it was before there was another
  double flops() const;     // as if nothing were masked
};

// Backward nodes ask for a deterministic algorithm where the problem does.
void AddSdpaNodes(const SdpaProblem& problem, cudnn_frontend::graph::Graph* graph);

}  // namespace te
