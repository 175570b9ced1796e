// The JSON header of a safetensors file, read as the reference library reads it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/checkpoint/tensor_file.h"

namespace te {

struct SafetensorsHeader {
  struct Item {
    TensorEntry entry;
    uint64_t begin = 0;  // of its data, counted from the header's end
    uint64_t end = 0;
  };
  std::vector<Item> items;  // in the order of their data
  std::vector<std::pair<std::string, std::string>> metadata;
};

// `text` is the header, `data_bytes` what follows it in the file. kCorruptData names the rule that
// is broken. Taken and refused are exactly what safetensors 0.8 takes and refuses
// (testdata/safetensors_headers.json), whose reader is made of serde's: white space around the
// object, unknown keys in an entry, an entry as an array of dtype, shape and data_offsets, a dtype
// as
// {"F32": null}, of two entries of one name the last; but no second "shape" in one entry, no second
// __metadata__, no number that a double does not hold, no nesting deeper than 127.
StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view text, uint64_t data_bytes);

}  // namespace te
