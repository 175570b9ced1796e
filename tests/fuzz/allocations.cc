#include "tests/fuzz/allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define TE_FUZZ_HOOKS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TE_FUZZ_HOOKS 1
#endif
#endif

namespace te::fuzz {
namespace {

// The process's allocator has no other owner than these three: a hook gets no context.
std::atomic<bool> counting = false;
std::atomic<ptrdiff_t> live = 0;
std::atomic<ptrdiff_t> peak = 0;

void Add(size_t bytes) {
  if (!counting.load(std::memory_order_relaxed)) return;
  const ptrdiff_t now =
      live.fetch_add(static_cast<ptrdiff_t>(bytes)) + static_cast<ptrdiff_t>(bytes);
  ptrdiff_t before = peak.load(std::memory_order_relaxed);
  while (now > before && !peak.compare_exchange_weak(before, now)) {
  }
}

void Remove(size_t bytes) {
  if (counting.load(std::memory_order_relaxed)) live.fetch_sub(static_cast<ptrdiff_t>(bytes));
}

}  // namespace
}  // namespace te::fuzz

#ifdef TE_FUZZ_HOOKS

// A sanitizer owns malloc and operator new, and offers hooks to others.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*,
                                                                             size_t),
                                                         void (*free_hook)(const volatile void*));
extern "C" size_t __sanitizer_get_allocated_size(const volatile void*);

namespace te::fuzz {
namespace {

void OnMalloc(const volatile void*, size_t bytes) { Add(bytes); }

void OnFree(const volatile void* pointer) {
  if (pointer != nullptr && counting.load(std::memory_order_relaxed)) {
    Remove(__sanitizer_get_allocated_size(pointer));
  }
}

}  // namespace

void InstallHooks() {
  static const int installed = __sanitizer_install_malloc_and_free_hooks(OnMalloc, OnFree);
  if (installed == 0) std::abort();
}

}  // namespace te::fuzz

#else

#include <errno.h>
#include <malloc.h>

// glibc lets a program bring its own malloc; these keep glibc's and count.
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t bytes) {
  void* pointer = __libc_malloc(bytes);
  if (pointer != nullptr) te::fuzz::Add(malloc_usable_size(pointer));
  return pointer;
}
void* calloc(size_t count, size_t bytes) {
  void* pointer = __libc_calloc(count, bytes);
  if (pointer != nullptr) te::fuzz::Add(malloc_usable_size(pointer));
  return pointer;
}
void* realloc(void* old, size_t bytes) {
  const size_t before = old == nullptr ? 0 : malloc_usable_size(old);
  void* pointer = __libc_realloc(old, bytes);
  if (pointer != nullptr || bytes == 0) te::fuzz::Remove(before);
  if (pointer != nullptr) te::fuzz::Add(malloc_usable_size(pointer));
  return pointer;
}
void* aligned_alloc(size_t alignment, size_t bytes) {
  void* pointer = __libc_memalign(alignment, bytes);
  if (pointer != nullptr) te::fuzz::Add(malloc_usable_size(pointer));
  return pointer;
}
int posix_memalign(void** out, size_t alignment, size_t bytes) {
  *out = aligned_alloc(alignment, bytes);
  return *out == nullptr ? ENOMEM : 0;
}
void free(void* pointer) {
  if (pointer != nullptr) te::fuzz::Remove(malloc_usable_size(pointer));
  __libc_free(pointer);
}
}

namespace te::fuzz {

void InstallHooks() {}

}  // namespace te::fuzz

#endif

namespace te::fuzz {

void StartCountingAllocations() {
  InstallHooks();
  live = 0;
  peak = 0;
  counting = true;
}

size_t StopCountingAllocations() {
  counting = false;
  return static_cast<size_t>(peak.load());
}

}  // namespace te::fuzz
