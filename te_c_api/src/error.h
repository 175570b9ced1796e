// From Status to te_status: the message goes to the thread's slot, and nothing thrown gets out.
#pragma once

#include <exception>
#include <new>

#include "te/te.h"
#include "te_kernels/base/status.h"

namespace te::c_api {

// Keeps the message for te_last_error_message() of this thread; gives the code.
te_status Report(const Status& status) noexcept;

// Runs `body` (-> Status) at the boundary. The ABI's promise that no exception crosses is kept
// here, also for what the standard library throws below (std::bad_alloc).
template <typename Body>
te_status Guard(const Body& body) noexcept {
  try {
    return Report(body());
  } catch (const std::bad_alloc&) {
    return Report(Status(StatusCode::kOutOfMemory, "out of host memory"));
  } catch (const std::exception& error) {
    return Report(Status(StatusCode::kInternal, error.what()));
  } catch (...) {
    return Report(Status(StatusCode::kInternal, "an exception of unknown type"));
  }
}

}  // namespace te::c_api
