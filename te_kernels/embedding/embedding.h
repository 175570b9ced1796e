// Embedding: out[t, :] = table[ids[t], :];  backward: dtable[v, :] (+)= sum over t with ids[t] == v
// of dout[t, :].
//
// ids int32 [T], each in [0, V): on the CPU kInvalidArgument names position and value of another
// one before anything is written; on CUDA, where callers check before, its row of out becomes NaN
// and its row of dout is left out. table, dtable [V, H], out, dout [T, H], one dtype of {float32,
// bfloat16}. The sum runs in float32, in the order of t, from what is there when it accumulates,
// and is rounded once: bitwise repeatable, for any number of threads. Without `accumulate`, rows
// that no id names become 0.
//
// padding_idx in [0, V) names a row that gets no gradient, as torch.nn.Embedding's does (-1: none):
// its tokens are left out of the sum, so that the row becomes 0, or stays as it is when it
// accumulates. The forward pass reads it like any other row.
#pragma once

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

struct EmbeddingForwardArgs {
  ConstTensorView ids;
  ConstTensorView table;
  TensorView out;
};

struct EmbeddingBackwardArgs {
  ConstTensorView ids;
  ConstTensorView dout;
  TensorView dtable;
  bool accumulate = false;
  int64_t padding_idx = -1;
};

Status ValidateEmbeddingForward(const EmbeddingForwardArgs& args);
Status ValidateEmbeddingBackward(const EmbeddingBackwardArgs& args);
Status EmbeddingForwardCpu(const Exec& exec, const EmbeddingForwardArgs& args);
Status EmbeddingForwardCuda(const Exec& exec, const EmbeddingForwardArgs& args);
Status EmbeddingBackwardCpu(const Exec& exec, const EmbeddingBackwardArgs& args);
Status EmbeddingBackwardCuda(const Exec& exec, const EmbeddingBackwardArgs& args);

}  // namespace te
