// A safetensors file taken apart, changed and put together again: for tests of its readers.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "models/checkpoint/safetensors.h"

namespace te {

struct EditableTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;
  std::string bytes;
};

struct EditableSafetensors {
  std::vector<EditableTensor> tensors;
  std::vector<std::pair<std::string, std::string>> metadata;

  static EditableSafetensors Read(const std::string& path) {
    EditableSafetensors out;
    const auto file = SafetensorsFile::Open(path);
    EXPECT_TRUE(file.ok()) << file.status().message();
    if (!file.ok()) return out;
    out.metadata = (*file)->metadata();
    for (size_t i = 0; i < (*file)->entries().size(); ++i) {
      const TensorEntry& entry = (*file)->entries()[i];
      EditableTensor tensor{entry.name, entry.type, entry.shape, std::string(entry.bytes(), '\0')};
      const auto stream = (*file)->OpenStream(i);
      EXPECT_TRUE((*stream)->Read(tensor.bytes.data(), tensor.bytes.size()).ok());
      out.tensors.push_back(std::move(tensor));
    }
    return out;
  }

  // Replaces the file.
  void Write(const std::string& path) const {
    std::vector<SafetensorsItem> items;
    for (const EditableTensor& tensor : tensors) {
      items.push_back(
          {tensor.name, tensor.type, tensor.shape, [&tensor](const SafetensorsItem::Sink& sink) {
             return sink(tensor.bytes.data(), tensor.bytes.size());
           }});
    }
    std::filesystem::remove(path);
    const Status status = WriteSafetensors(path, items, metadata, /*replace=*/false);
    EXPECT_TRUE(status.ok()) << status.message();
  }

  EditableTensor& Tensor(const std::string& name) {
    for (EditableTensor& tensor : tensors)
      if (tensor.name == name) return tensor;
    ADD_FAILURE() << "no tensor " << name;
    return tensors.front();
  }
  void Erase(const std::string& name) {
    EXPECT_EQ(std::erase_if(tensors, [&](const EditableTensor& t) { return t.name == name; }), 1u)
        << name;
  }
  std::string& Metadata(const std::string& key) {
    for (auto& [k, value] : metadata)
      if (k == key) return value;
    metadata.emplace_back(key, "");
    return metadata.back().second;
  }
  void EraseMetadata(const std::string& key) {
    EXPECT_EQ(std::erase_if(metadata, [&](const auto& item) { return item.first == key; }), 1u)
        << key;
  }
  // Sets element `index` of an F32 tensor.
  void Set(const std::string& name, size_t index, float value) {
    EditableTensor& tensor = Tensor(name);
    ASSERT_LE((index + 1) * sizeof(value), tensor.bytes.size());
    std::memcpy(tensor.bytes.data() + index * sizeof(value), &value, sizeof(value));
  }
  float Get(const std::string& name, size_t index) {
    float value = 0;
    std::memcpy(&value, Tensor(name).bytes.data() + index * sizeof(value), sizeof(value));
    return value;
  }
};

}  // namespace te
