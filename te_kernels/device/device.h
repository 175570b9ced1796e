// One device: its memory, its operations, its libraries' state. A context owns one.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "te_kernels/base/exec.h"
#include "te_kernels/device/kernel_table.h"
#include "te_kernels/device/pin_as.h"
#include "te_kernels/device/search_progress.h"

namespace te {

// Work recorded once and launched again with the same addresses: a CUDA graph. Thread-compatible;
// the memory it works on must outlive it.
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
  virtual Status Launch(const Exec& exec) = 0;
};

// Device memory that the host reads later, without stopping the stream: a copy in pinned memory.
// Thread-compatible.
class HostMirror {
 public:
  virtual ~HostMirror() = default;
  // Enqueues the copy of the mirror's size from `device`.
  virtual Status Fetch(const Exec& exec, const void* device) = 0;
  // Waits for the last Fetch, and for nothing after it. The bytes stay until the next Fetch.
  virtual StatusOr<const void*> Wait() = 0;
};

class Device : public MemoryResource {
 public:
  virtual const char* name() const = 0;  // "cpu", "cuda"
  virtual const KernelTable& kernels() const = 0;
  // Whether the host may read and write this device's memory by pointer: files are then read
  // straight into their place.
  virtual bool host_accessible() const { return false; }
  virtual int default_threads() const = 0;  // as many as this process may run on
  // A queue of the device's own for one context, null where calls are synchronous; and back.
  virtual StatusOr<void*> NewStream() = 0;
  virtual void FreeStream(void* stream) = 0;
  // A queue that gets what `stream` leaves over where both have work; null where there is none:
  // calls are synchronous, or nothing comes behind `stream`.
  virtual StatusOr<void*> NewStreamBehind(void*) { return static_cast<void*>(nullptr); }
  // What `waiting` is given from now on begins when all that `awaited` holds so far has ended.
  virtual Status Follow(const Exec& /*waiting*/, const Exec& /*awaited*/) { return OkStatus(); }
  // A new state for one context (oneDNN's engine and cached primitives); used by one thread at a
  // time.
  virtual StatusOr<std::unique_ptr<LibraryState>> NewLibraryState() = 0;
  // Copies between host and device memory (either may be the same memory on the CPU), ordered on
  // the stream; the host buffer may be reused when the call returns.
  virtual Status CopyToHost(const Exec& exec, const void* device, void* host, size_t bytes) = 0;
  virtual Status CopyFromHost(const Exec& exec, const void* host, void* device, size_t bytes) = 0;
  // What this backend's libraries choose by timing. Text of choices begins with a line that names
  // the card and versions that they hold for and has one a line, with " : " before what was chosen;
  // a line without " : " begins a part for another library.
  //
  // What the choices of this context hold for, as one line: "NVIDIA H200 | driver 13000 | ...";
  // empty: nothing is chosen by timing.
  virtual StatusOr<std::string> ChoicesKey(const Exec&) { return std::string(); }
  // Empty: nothing.
  virtual StatusOr<std::string> TunedChoices(const Exec&, WhichChoices) { return std::string(); }
  // What is pinned is not timed again. False: the text is of another card or version, and nothing
  // changed; kCorruptData: no such text, and nothing changed.
  virtual StatusOr<bool> PinChoices(const Exec&, const std::string& /*text*/, PinAs) {
    return false;
  }
  virtual SearchTotals Searches(const Exec&) { return {}; }
  virtual void ConfigureSearches(const Exec&, const SearchSettings&) {}
  virtual Status Zero(const Exec& exec, void* device, size_t bytes) = 0;
  virtual Status Synchronize(const Exec& exec) = 0;
  virtual StatusOr<std::unique_ptr<HostMirror>> NewHostMirror(size_t bytes) = 0;
  // Whether work on exec's queue can be recorded. Between BeginRecording and EndRecording
  // operations are noted instead of run; nothing may allocate, copy from the host or wait.
  virtual bool can_record(const Exec&) const { return false; }
  virtual Status BeginRecording(const Exec& exec);
  virtual StatusOr<std::unique_ptr<RecordedWork>> EndRecording(const Exec& exec);
};

// `name` is "cpu", "cuda" or "cuda:N" (the Nth visible card); another one, or one that this build
// lacks, is kUnsupported and lists what this build has.
StatusOr<std::unique_ptr<Device>> MakeDevice(std::string_view name);

}  // namespace te
