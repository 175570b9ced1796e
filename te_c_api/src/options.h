// Option structs with struct_size: how old clients run on new libraries, and new ones on old.
#pragma once

#include <algorithm>
#include <cstring>

#include "te_kernels/base/status.h"

namespace te::c_api {

// Reads the caller's struct over the defaults in *out. `version1_size`: the size in ABI version 1,
// the least that is accepted. A larger struct than this library's is accepted when all that we do
// not know is zero.
template <typename Options>
Status ReadOptions(const Options* options, const char* argument, size_t version1_size,
                   Options* out) {
  if (options == nullptr) return OkStatus();
  size_t size;
  std::memcpy(&size, options, sizeof(size));
  if (size < version1_size) {
    return InvalidArgument(
        "{}->struct_size is {}; expected at least {}: fill the struct with its *_init function",
        argument, size, version1_size);
  }
  if (size > sizeof(Options)) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(options);
    for (size_t i = sizeof(Options); i < size; ++i) {
      if (bytes[i] != 0) {
        return InvalidArgument(
            "{}: byte {} of a struct of {} bytes is set, but this library (ABI version {}) knows "
            "only the first {}: an option newer "
            "than the library",
            argument, i, size, TE_ABI_VERSION, sizeof(Options));
      }
    }
    size = sizeof(Options);
  }
  std::memcpy(out, options, size);
  out->struct_size = sizeof(Options);
  return OkStatus();
}

// *_init_sized: writes the defaults into a struct of the size that the caller knows. What a larger
// one has beyond ours is set to zero, which is what ReadOptions accepts.
template <typename Options>
Status InitSizedOptions(Options* options, const char* argument, size_t struct_size,
                        size_t version1_size, const Options& defaults) {
  if (options == nullptr) return InvalidArgument("{} is NULL; expected an address", argument);
  if (struct_size < version1_size) {
    return InvalidArgument("struct_size is {}; expected the size of *{}: at least {}", struct_size,
                           argument, version1_size);
  }
  std::memset(static_cast<void*>(options), 0, struct_size);
  std::memcpy(static_cast<void*>(options), &defaults, std::min(struct_size, sizeof(Options)));
  std::memcpy(static_cast<void*>(options), &struct_size, sizeof(struct_size));
  return OkStatus();
}

// *_init of a struct that has not grown since version 1: writes the defaults.
template <typename Options>
Status InitOptions(Options* options, const char* argument, const Options& defaults) {
  if (options == nullptr) return InvalidArgument("{} is NULL; expected an address", argument);
  *options = defaults;
  return OkStatus();
}

}  // namespace te::c_api
