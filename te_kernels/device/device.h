// One device: its memory, its operations, its libraries' state. A context owns one.
#pragma once

#include <memory>
#include <string_view>

#include "te_kernels/base/exec.h"
#include "te_kernels/device/kernel_table.h"

namespace te {

class Device : public MemoryResource {
 public:
  virtual const char* name() const = 0;  // "cpu", "cuda"
  virtual const KernelTable& kernels() const = 0;
  // Whether the host may read and write this device's memory by pointer: files are then read
  // straight into their place.
  virtual bool host_accessible() const { return false; }
  virtual int default_threads() const = 0;  // as many as this process may run on
  // A new state for one context (oneDNN's engine and cached primitives); used by one thread at a
  // time.
  virtual StatusOr<std::unique_ptr<LibraryState>> NewLibraryState() = 0;
  // Copies between host and device memory (either may be the same memory on the CPU), ordered on
  // the stream; the host buffer may be reused when the call returns.
  virtual Status CopyToHost(const Exec& exec, const void* device, void* host, size_t bytes) = 0;
  virtual Status CopyFromHost(const Exec& exec, const void* host, void* device, size_t bytes) = 0;
  virtual Status Zero(const Exec& exec, void* device, size_t bytes) = 0;
  virtual Status Synchronize(const Exec& exec) = 0;
};

// `name` is "cpu"; another one is kUnsupported and lists what this build has.
StatusOr<std::unique_ptr<Device>> MakeDevice(std::string_view name);

}  // namespace te
