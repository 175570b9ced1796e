// How the CPU backend cuts attention into blocks of queries, and the matrix products of one block.
#pragma once

#include <memory>
#include <vector>

#include "te_kernels/attention/attention_mask.h"
#include "te_kernels/gemm/onednn_state.h"

namespace te {

// Queries [query, query + rows) against keys [key, key + keys): all that any of them sees. keys may
// be 0.
struct AttentionBlock {
  int64_t query = 0;
  int64_t rows = 0;
  int64_t key = 0;
  int64_t keys = 0;
  // Forward: scores, out. Backward: scores, dprobabilities, dv, dq, dk.
  std::shared_ptr<const Matmul> products[5];
};

// The blocks of one (batch, head) pair: the same for all of them. Key ranges are rounded outwards,
// so that few shapes occur (and few primitives are made); a block's scores stay within about 1 MiB
// where the number of keys allows.
std::vector<AttentionBlock> CutAttention(const AttentionMask& mask, int64_t num_queries,
                                         int64_t num_keys);

// Memory of one thread.
template <typename T>
struct AttentionScratch {
  float* scores = nullptr;  // [rows, keys]
  float* dprobabilities = nullptr;
  T* probabilities = nullptr;
  T* dscores = nullptr;
  float* dk = nullptr;  // [num_keys, d]
  float* dv = nullptr;
  void* scratchpad = nullptr;
  float amax = 0;  // of what was rounded to FP8
};

}  // namespace te
