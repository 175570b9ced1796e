// Status and StatusOr: how every fallible function of te reports. No exception crosses a function
// of ours; those of libraries are caught where the library is called.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "fmt/core.h"  // not format.h, which costs every file that returns a Status 3 s

namespace te {

// Equal to the te_status values of te/te.h: numbers are never reused.
enum class StatusCode : int32_t {
  kOk = 0,
  kInvalidArgument = 1,     // the caller's value is wrong; the message says what was expected
  kOutOfMemory = 2,         // the message says what was asked and what was free
  kUnsupported = 3,         // valid, but not built here (yet); the message names it
  kNotFound = 4,            // a file, a tensor, a name
  kIoError = 5,             // the operating system refused: errno's text is in the message
  kCorruptData = 6,         // a file that breaks the rules of its format
  kFailedPrecondition = 7,  // right call, wrong moment
  kInternal = 8,            // a bug of ours, or a library's failure that we did not foresee
};

inline constexpr size_t kMaxStatusMessage = 8192;

// Cheap when ok. Thread-compatible.
class [[nodiscard]] Status {
 public:
  Status() = default;
  // Messages are lines for people and hold what files say: control characters and what is no UTF-8
  // are escaped (\n, \x1b), and a message ends after kMaxStatusMessage bytes.
  Status(StatusCode code, std::string message);

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // "context: message", for a caller that knows more (a file, a layer).
  Status WithContext(const std::string& context) const {
    return ok() ? *this : Status(code_, context + ": " + message_);
  }
  // For calls whose failure changes nothing; say why at the call.
  void IgnoreError() const {}

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status OkStatus() { return Status(); }

// The makers below check their format strings when they are compiled; this formats.
Status MakeStatus(StatusCode code, fmt::string_view format, fmt::format_args args);

#define TE_DEFINE_STATUS_MAKER(NAME)                                                \
  template <typename... Args>                                                       \
  Status NAME(fmt::format_string<Args...> format, Args&&... args) {                 \
    return MakeStatus(StatusCode::k##NAME, format, fmt::make_format_args(args...)); \
  }
TE_DEFINE_STATUS_MAKER(InvalidArgument)
TE_DEFINE_STATUS_MAKER(OutOfMemory)
TE_DEFINE_STATUS_MAKER(Unsupported)
TE_DEFINE_STATUS_MAKER(NotFound)
TE_DEFINE_STATUS_MAKER(IoError)
TE_DEFINE_STATUS_MAKER(CorruptData)
TE_DEFINE_STATUS_MAKER(FailedPrecondition)
TE_DEFINE_STATUS_MAKER(Internal)
#undef TE_DEFINE_STATUS_MAKER

// A value, or the reason why there is none. Reading the value of a failure is a bug (terminates).
template <typename T>
class [[nodiscard]] StatusOr {
 public:
  StatusOr(Status status) : status_(std::move(status)) {
    if (status_.ok()) status_ = Status(StatusCode::kInternal, "StatusOr made from an ok Status");
  }
  StatusOr(T value) : value_(std::move(value)) {}

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  T& value() & { return value_.value(); }
  const T& value() const& { return value_.value(); }
  T&& value() && { return std::move(value_).value(); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

#define TE_STATUS_CONCAT_(a, b) a##b
#define TE_STATUS_CONCAT(a, b) TE_STATUS_CONCAT_(a, b)

#define TE_RETURN_IF_ERROR(expr)                                               \
  do {                                                                         \
    if (::te::Status te_status_ = (expr); !te_status_.ok()) return te_status_; \
  } while (0)

#define TE_ASSIGN_OR_RETURN(lhs, expr) \
  TE_ASSIGN_OR_RETURN_(TE_STATUS_CONCAT(te_or_, __LINE__), lhs, expr)
#define TE_ASSIGN_OR_RETURN_(var, lhs, expr) \
  auto var = (expr);                         \
  if (!var.ok()) return var.status();        \
  lhs = std::move(var).value()

}  // namespace te
