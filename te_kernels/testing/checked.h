// For tests of what stands on contexts: values and statuses that must be good, and the device that
// a test is to use.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <utility>

#include "te_kernels/base/status.h"

namespace te::test {

// Ends the program without one: what follows could not run.
template <typename T>
T Value(StatusOr<T> value) {
  if (!value.ok()) {
    ADD_FAILURE() << value.status().message();
    std::abort();
  }
  return std::move(value).value();
}

inline void Ok(const Status& status) { ASSERT_TRUE(status.ok()) << status.message(); }

// TE_TEST_DEVICE, else "cpu".
inline const char* TestDevice() {
  const char* device = std::getenv("TE_TEST_DEVICE");
  return device != nullptr ? device : "cpu";
}

}  // namespace te::test
