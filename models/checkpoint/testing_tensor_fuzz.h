// What the fuzz targets of weight files do with a file that opened.
#pragma once

#include <memory>
#include <string>

#include "models/checkpoint/tensor_file.h"
#include "tests/fuzz/fuzzing.h"

namespace te::fuzz {

// Reads the tensor as its stored bytes, in two pieces, and as float32 and int32. `bytes` are empty
// where it is larger than `most_bytes` (a tensor whose dimensions repeat one element can be as
// large as it likes) or could not be read.
inline std::string ReadWhole(const TensorFile& file, size_t index, size_t most_bytes) {
  const TensorEntry& entry = file.entries()[index];
  TE_FUZZ_CHECK(entry.elements >= 0, "{}", entry.ToString());
  TE_FUZZ_CHECK(entry.elements <= INT64_MAX / 8, "{}", entry.ToString());
  if (entry.bytes() > most_bytes || static_cast<uint64_t>(entry.elements) > most_bytes) return "";
  std::string bytes(entry.bytes(), '\0');
  const auto stream = file.OpenStream(index);
  CheckRefusal(stream.status());
  bool whole = stream.ok();
  if (whole && BitsOf(entry.type) >= 8) {
    const size_t item = static_cast<size_t>(BitsOf(entry.type)) / 8;
    const size_t first = bytes.size() / item / 2 * item;
    Status status = (*stream)->Read(bytes.data(), first);
    if (status.ok()) status = (*stream)->Read(bytes.data() + first, bytes.size() - first);
    CheckRefusal(status);
    whole = status.ok();
  }
  if (entry.shape.size() <= static_cast<size_t>(kMaxRank)) {
    const Shape shape{std::span<const int64_t>(entry.shape)};
    for (const DType dtype : {DType::kFloat32, DType::kInt32, DType::kUInt8}) {
      std::string converted(static_cast<size_t>(entry.elements) * SizeOf(dtype), '\0');
      CheckRefusal(file.ReadTensor(index, TensorView(converted.data(), dtype, shape)));
    }
  }
  if (!whole) bytes.clear();
  return bytes;
}

}  // namespace te::fuzz
