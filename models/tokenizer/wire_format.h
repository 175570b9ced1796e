// The wire format of protocol buffers (https://protobuf.dev/programming-guides/encoding), in which
// a tokenizer.model is written.
#pragma once

#include <cstdint>
#include <string_view>

#include "te_kernels/base/status.h"

namespace te {

struct WireField {
  uint64_t number = 0;
  uint64_t value = 0;      // of a number
  std::string_view bytes;  // of a field that has a length; empty for others
};

// Reads the fields of one message, which must outlive it and them.
class WireReader {
 public:
  explicit WireReader(std::string_view message) : rest_(message) {}

  // The next field; false: the end. kCorruptData: this is no message.
  StatusOr<bool> Next(WireField* field);

 private:
  Status Varint(uint64_t* out);
  Status Take(uint64_t count, std::string_view* out);

  std::string_view rest_;
};

}  // namespace te
