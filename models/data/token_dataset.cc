#include <algorithm>
#include <utility>
#include <vector>

#include "models/checkpoint/safetensors.h"
#include "models/data/dataset_formats.h"

namespace te {
namespace {

class TokenDataset : public Dataset {
 public:
  explicit TokenDataset(const DatasetOptions& options) : options_(options) {}

  Status Read(const std::string& path) {
    TE_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
    const TensorEntry* ids = file->Find("input_ids");
    if (ids == nullptr) {
      return InvalidArgument(
          "{}: no tensor input_ids; expected input_ids [N, S] and optionally labels, "
          "attention_mask",
          path);
    }
    if (ids->shape.size() != 2 || ids->shape[0] < 1 || ids->shape[1] < 1) {
      return InvalidArgument("{}: input_ids is {}; expected [N, S] with N, S >= 1", path,
                             ids->ToString());
    }
    rows_ = ids->shape[0];
    columns_ = ids->shape[1];
    TE_RETURN_IF_ERROR(ReadTensor(*file, *ids, &input_ids_));
    TE_RETURN_IF_ERROR(CheckIds(path));
    const TensorEntry* mask = file->Find("attention_mask");
    if (mask != nullptr) TE_RETURN_IF_ERROR(ReadTensor(*file, *mask, &mask_));
    TE_RETURN_IF_ERROR(CheckMask(path));
    const TensorEntry* labels = file->Find("labels");
    if (labels != nullptr) TE_RETURN_IF_ERROR(ReadTensor(*file, *labels, &labels_));
    return CheckLabels(path);
  }

  int64_t size() const override { return rows_; }
  int64_t truncated() const override { return columns_ > options_.max_sequence_length ? rows_ : 0; }
  Status Prepare(std::span<const int64_t>) override {
    return OkStatus();
  }  // ids need no tokenizing

  StatusOr<Sample> At(int64_t index) override {
    const int64_t length = std::min(columns_, options_.max_sequence_length);
    Sample sample;
    for (int64_t at = index * columns_; at < index * columns_ + length; ++at) {
      const uint8_t keep = mask_.empty() || mask_[at] != 0 ? 1 : 0;
      sample.input_ids.push_back(input_ids_[at]);
      sample.attention_mask.push_back(keep);
      sample.labels.push_back(!labels_.empty() ? labels_[at]
                              : keep != 0      ? input_ids_[at]
                                               : kIgnoredLabel);
    }
    return sample;
  }

 private:
  Status ReadTensor(const SafetensorsFile& file, const TensorEntry& entry,
                    std::vector<int32_t>* to) const {
    switch (entry.type) {
      case StoredType::kI64:
      case StoredType::kI32:
      case StoredType::kI16:
      case StoredType::kI8:
      case StoredType::kU8:
      case StoredType::kBool:
        break;
      default:
        return InvalidArgument("{}: {} is {}; expected I32 or I64", file.path(), entry.name,
                               entry.ToString());
    }
    if (entry.shape != std::vector<int64_t>{rows_, columns_}) {
      return InvalidArgument("{}: {} is {}; expected the shape of input_ids, [{}, {}]", file.path(),
                             entry.name, entry.ToString(), rows_, columns_);
    }
    to->resize(static_cast<size_t>(entry.elements));
    const size_t index = static_cast<size_t>(&entry - file.entries().data());
    return file.ReadTensor(index, TensorView(to->data(), DType::kInt32, {rows_, columns_}));
  }

  std::string Where(const std::string& path, const char* tensor, size_t at) const {
    return fmt::format("{}: {}[{}, {}]", path, tensor, at / columns_, at % columns_);
  }

  Status CheckIds(const std::string& path) const {
    for (size_t i = 0; i < input_ids_.size(); ++i) {
      if (input_ids_[i] >= 0 && input_ids_[i] < options_.vocab_size) continue;
      return InvalidArgument("{} is {}; the model has ids 0 to {} (vocab_size in config.json)",
                             Where(path, "input_ids", i), input_ids_[i], options_.vocab_size - 1);
    }
    return OkStatus();
  }

  Status CheckMask(const std::string& path) const {
    for (size_t i = 0; i < mask_.size(); ++i) {
      if (mask_[i] == 0 || mask_[i] == 1) continue;
      return InvalidArgument("{} is {}; expected 1 (keep) or 0 (padding)",
                             Where(path, "attention_mask", i), mask_[i]);
    }
    return OkStatus();
  }

  Status CheckLabels(const std::string& path) const {
    for (size_t i = 0; i < labels_.size(); ++i) {
      if (labels_[i] == kIgnoredLabel || (labels_[i] >= 0 && labels_[i] < options_.vocab_size))
        continue;
      return InvalidArgument("{} is {}; expected {} (not counted) or an id from 0 to {}",
                             Where(path, "labels", i), labels_[i], kIgnoredLabel,
                             options_.vocab_size - 1);
    }
    return OkStatus();
  }

  DatasetOptions options_;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
  std::vector<int32_t> input_ids_;
  std::vector<int32_t> labels_;  // empty: the ids
  std::vector<int32_t> mask_;    // empty: all 1
};

}  // namespace

StatusOr<std::unique_ptr<Dataset>> OpenTokenDataset(const std::string& path,
                                                    const DatasetOptions& options) {
  auto dataset = std::make_unique<TokenDataset>(options);
  try {
    TE_RETURN_IF_ERROR(dataset->Read(path));
  } catch (const std::bad_alloc&) {
    return OutOfMemory("{}: the file does not fit into memory", path);
  }
  return std::unique_ptr<Dataset>(std::move(dataset));
}

}  // namespace te
