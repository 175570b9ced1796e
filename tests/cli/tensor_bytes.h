// Tensors of checkpoints and files, for comparing.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "models/checkpoint/checkpoint_reader.h"
#include "models/checkpoint/tensor_file.h"

namespace te {

struct StoredTensor {
  StoredType type;
  std::vector<int64_t> shape;
  std::string bytes;
  bool operator==(const StoredTensor&) const = default;
};

inline StoredTensor ReadStored(const TensorFile& file, size_t index) {
  const TensorEntry& entry = file.entries()[index];
  StoredTensor stored{entry.type, entry.shape, std::string(entry.bytes(), '\0')};
  auto stream = file.OpenStream(index);
  EXPECT_TRUE(stream.ok()) << stream.status().message();
  EXPECT_TRUE((*stream)->Read(stored.bytes.data(), stored.bytes.size()).ok());
  return stored;
}

// Every tensor of a checkpoint directory by name, as it is stored.
inline std::map<std::string, StoredTensor> ReadCheckpoint(const std::string& directory) {
  std::map<std::string, StoredTensor> out;
  auto reader = CheckpointReader::Open(directory);
  EXPECT_TRUE(reader.ok()) << reader.status().message();
  if (!reader.ok()) return out;
  for (const auto& [name, tensor] : (*reader)->tensors()) {
    out[name] = ReadStored(*(*reader)->files()[tensor.file], tensor.index);
  }
  return out;
}

// A floating tensor of one file as float32; empty when there is none.
inline std::vector<float> ReadFloats(const TensorFile& file, const std::string& name) {
  for (size_t i = 0; i < file.entries().size(); ++i) {
    const TensorEntry& entry = file.entries()[i];
    if (entry.name != name) continue;
    std::vector<float> values(static_cast<size_t>(entry.elements));
    const Shape shape{std::span<const int64_t>(entry.shape)};
    EXPECT_TRUE(file.ReadTensor(i, TensorView(values.data(), DType::kFloat32, shape)).ok());
    return values;
  }
  return {};
}

}  // namespace te
