// A CUDA event that is destroyed with its scope: what timing a candidate needs two of.
#pragma once

#include <cuda_runtime_api.h>

namespace te::cuda {

class Event {
 public:
  Event() { cudaEventCreate(&event_); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace te::cuda
