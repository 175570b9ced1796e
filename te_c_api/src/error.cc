#include "te_c_api/src/error.h"

#include <string>

namespace te::c_api {
namespace {

std::string& LastError() {
  thread_local std::string message;
  return message;
}

}  // namespace

te_status Report(const Status& status) noexcept {
  if (status.ok()) return TE_STATUS_OK;
  try {
    LastError() = status.message();
  } catch (...) {
    LastError().clear();  // no memory even for the message: the code still tells
  }
  return static_cast<te_status>(status.code());
}

}  // namespace te::c_api

const char* te_last_error_message(void) { return te::c_api::LastError().c_str(); }

const char* te_status_name(te_status status) {
  switch (status) {
    case TE_STATUS_OK:
      return "OK";
    case TE_STATUS_INVALID_ARGUMENT:
      return "INVALID_ARGUMENT";
    case TE_STATUS_OUT_OF_MEMORY:
      return "OUT_OF_MEMORY";
    case TE_STATUS_UNSUPPORTED:
      return "UNSUPPORTED";
    case TE_STATUS_NOT_FOUND:
      return "NOT_FOUND";
    case TE_STATUS_IO_ERROR:
      return "IO_ERROR";
    case TE_STATUS_CORRUPT_DATA:
      return "CORRUPT_DATA";
    case TE_STATUS_FAILED_PRECONDITION:
      return "FAILED_PRECONDITION";
    case TE_STATUS_INTERNAL:
      return "INTERNAL";
    default:
      return "UNKNOWN";
  }
}
