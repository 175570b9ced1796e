// oneDNN as one context uses it: an engine, a stream, and the matmul primitives made so far.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "te_kernels/base/exec.h"
#include "te_kernels/base/view.h"

namespace te {

// d[i, j] (+)= alpha * a[i, j] b[i, j] (+ bias), by shapes and strides alone: what one primitive is
// made for. Batch dimensions (up to two, outermost) of extent 1 in a or b broadcast.
struct MatmulSpec {
  ConstTensorView a;     // [..., M, K]; its address is not part of the spec
  ConstTensorView b;     // [..., K, N]
  ConstTensorView d;     // [..., M, N]
  ConstTensorView bias;  // optional, [N]
  float alpha = 1;
  bool accumulate = false;
  // Copies b to oneDNN's blocked layout first, in the scratchpad: one pass over b, which pays where
  // many rows of a meet it.
  bool pack_b = false;
  int num_threads = 1;
};

// A primitive, ready to run. Immutable: several threads may execute one at the same time, each with
// its own scratchpad.
class Matmul {
 public:
  virtual ~Matmul() = default;
  // Bytes of scratchpad that an execution needs; may be 0.
  virtual size_t scratchpad_bytes() const = 0;
  virtual Status Execute(const void* a, const void* b, const void* bias, void* d,
                         void* scratchpad) const = 0;
};

class OnednnState : public LibraryState {
 public:
  // The primitive for `spec`: found, or made (kInternal with oneDNN's reason). Not thread-safe;
  // what it returns is.
  virtual StatusOr<std::shared_ptr<const Matmul>> Get(const MatmulSpec& spec) = 0;
  // Whether bfloat16 products run on bfloat16 instructions. Without them oneDNN's are slow or
  // refused: operations convert to float32 first.
  virtual bool native_bf16() const = 0;
  // For tests: the conversion path on any machine.
  virtual void set_native_bf16(bool native) = 0;
};

StatusOr<std::unique_ptr<LibraryState>> NewOnednnState();

// Get + Execute with exec's threads and scratch.
Status RunMatmul(const Exec& exec, MatmulSpec spec, const void* a, const void* b, const void* bias,
                 void* d);

// The OnednnState of `exec`; kFailedPrecondition when it has none.
StatusOr<OnednnState*> GetOnednnState(const Exec& exec);

// Sets OpenMP's thread count, which oneDNN obeys, for a scope.
class OmpThreads {
 public:
  explicit OmpThreads(int num_threads);
  ~OmpThreads();
  OmpThreads(const OmpThreads&) = delete;
  OmpThreads& operator=(const OmpThreads&) = delete;

 private:
  int previous_;
};

}  // namespace te
