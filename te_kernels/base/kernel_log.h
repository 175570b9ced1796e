// What a step executed: one record a kernel or library call, in order. A test asserts the list, so
// that a silent fallback cannot hide.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "te_kernels/base/dtype.h"

namespace te {

struct KernelRecord {
  std::string operation;    // the entry of the kernel table: "rms_norm_forward"
  std::string kernel;       // what ran: "rms_norm_forward_cuda", "cublasLt algo 66", "cudnn sdpa"
  DType dtype;              // of the operands
  std::string orientation;  // of a matrix product: "fprop", "dgrad", "wgrad"; else empty
  int64_t bytes;            // that must be read and written once
  bool beside = false;      // on the context's second queue (Exec::beside)
};

// Thread-compatible; belongs to one context.
class KernelLog {
 public:
  void Add(KernelRecord record) { records_.push_back(std::move(record)); }
  const std::vector<KernelRecord>& records() const { return records_; }
  void Clear() { records_.clear(); }

 private:
  std::vector<KernelRecord> records_;
};

}  // namespace te
