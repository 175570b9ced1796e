// cuBLASLt's kernels for Hopper take their tiles from a counter in the workspace, which
// cublasLtMatmul sets to zero before each of them: in a recorded step some 400 tiny operations of
// their own between the product and what comes before it, 2 us each. Here every product of a
// recording gets a counter of its own, and one operation at the recording's start zeroes them all.
#pragma once

#include <driver_types.h>

#include <cstddef>

#include "te_kernels/base/memory.h"

namespace te::cuda {

// Of one context; used by one thread at a time. Recordings may share the counters: a context's
// work is in order.
class RecordedCounters {
 public:
  // Of a counter, and the most that an algorithm may ask for to be given one.
  static constexpr size_t kBytes = 256;

  RecordedCounters() = default;
  ~RecordedCounters();
  RecordedCounters(const RecordedCounters&) = delete;
  RecordedCounters& operator=(const RecordedCounters&) = delete;

  // Before the stream is captured: the first time, the counters come from `memory`, which must
  // outlive them.
  Status BeginRecording(MemoryResource* memory);
  // The workspace, kBytes of it, of the product that is recorded next, whose algorithm asks for
  // `bytes`; null outside a recording, where that is more, and when all are taken.
  void* Next(size_t bytes);
  // Takes the zeroing of what Next gave out to the start of `graph`, which may be null (a capture
  // that failed). A zeroing that stands where it is not expected stays there.
  Status EndRecording(cudaGraph_t graph);

 private:
  static constexpr size_t kCounters = 4096;
  static constexpr size_t kAllBytes = kCounters * kBytes;

  // Whether it zeroes one of the counters, and nothing else.
  bool Zeroes(const cudaMemsetParams& memset) const;

  MemoryResource* memory_ = nullptr;  // of what follows
  char* counters_ = nullptr;
  size_t taken_ = 0;
  bool recording_ = false;
};

}  // namespace te::cuda
