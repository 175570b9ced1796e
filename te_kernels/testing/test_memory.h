// Where tests keep what operations read and write: host memory, unless a backend's test library
// installs memory that its device reaches, too.
#pragma once

#include <cstring>
#include <memory>
#include <type_traits>

#include "te_kernels/base/memory.h"

namespace te::test {

// Called before main; the memory lives as long as the program.
void SetTestMemory(MemoryResource* memory);

// Aborts when there is no memory.
std::shared_ptr<uint8_t[]> AllocateTestBytes(size_t bytes);

// One value where both the test and the device reach it: the target of scalar results, step
// scalars.
template <typename T>
class Shared {
 public:
  explicit Shared(const T& value = T()) : storage_(AllocateTestBytes(sizeof(T))) {
    static_assert(std::is_trivially_copyable_v<T>);
    new (storage_.get()) T(value);
  }
  T* get() const { return reinterpret_cast<T*>(storage_.get()); }
  T& operator*() const { return *get(); }
  T* operator->() const { return get(); }

 private:
  std::shared_ptr<uint8_t[]> storage_;
};

}  // namespace te::test
