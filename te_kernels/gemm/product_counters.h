// cuBLASLt's kernels for Hopper take their tiles from a counter in the workspace, which
// cublasLtMatmul sets to zero before each of them: in a recorded step some 400 tiny operations of
// their own between the product and what comes before it, 2 us each. Here every product of a
// recording gets a counter of its own, and one operation at the recording's start zeroes them all.
#pragma once

#include <driver_types.h>

#include <cstddef>

#include "te_kernels/base/status.h"

namespace te {

// Of one context; used by one thread at a time. Recordings may share the counters: a context's
// work is in order.
class ProductCounters {
 public:
  // A counter, and as much as an algorithm may ask for to be given one.
  static constexpr size_t kBytes = 256;

  ProductCounters() = default;
  ~ProductCounters();
  ProductCounters(const ProductCounters&) = delete;
  ProductCounters& operator=(const ProductCounters&) = delete;

  // Before the stream is captured: memory is allocated here.
  Status BeginRecording();
  // The workspace, kBytes of it, of the product that is recorded next; null outside a recording and
  // when all are taken.
  void* Next();
  // Takes the zeroing of what Next gave out to the start of `graph`, which may be null (a capture
  // that failed). A zeroing that stands where it is not expected stays there.
  Status EndRecording(cudaGraph_t graph);

 private:
  static constexpr size_t kCounters = 4096;

  // Whether it zeroes one of the counters, and nothing else.
  bool Zeroes(const cudaMemsetParams& memset) const;

  char* counters_ = nullptr;
  size_t taken_ = 0;
  bool recording_ = false;
};

}  // namespace te
