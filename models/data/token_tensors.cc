#include "models/data/token_tensors.h"

#include <memory>
#include <new>
#include <utility>

#include "models/checkpoint/safetensors.h"
#include "models/data/batch.h"

namespace te {
namespace {

class Reader {
 public:
  explicit Reader(const SafetensorsFile& file) : file_(file) {}

  StatusOr<TokenTensors> Read(int64_t vocab_size) {
    const TensorEntry* ids = file_.Find("input_ids");
    if (ids == nullptr) {
      return InvalidArgument(
          "{}: no tensor input_ids; expected input_ids [N, S] and optionally labels, "
          "attention_mask",
          file_.path());
    }
    if (ids->shape.size() != 2 || ids->shape[0] < 1 || ids->shape[1] < 1) {
      return InvalidArgument("{}: input_ids is {}; expected [N, S] with N, S >= 1", file_.path(),
                             ids->ToString());
    }
    tensors_.rows = ids->shape[0];
    tensors_.columns = ids->shape[1];
    const std::string range =
        fmt::format("the model has ids 0 to {} (vocab_size in config.json)", vocab_size - 1);
    const auto is_id = [&](int32_t value) { return value >= 0 && value < vocab_size; };
    TE_RETURN_IF_ERROR(ReadChecked("input_ids", &tensors_.input_ids, is_id, range));
    TE_RETURN_IF_ERROR(ReadChecked(
        "labels", &tensors_.labels,
        [&](int32_t value) { return value == kIgnoredLabel || is_id(value); },
        range + ", -100 is not counted"));
    std::vector<int32_t> mask;
    TE_RETURN_IF_ERROR(ReadChecked(
        "attention_mask", &mask, [](int32_t value) { return value == 0 || value == 1; },
        "expected 1 (keep) or 0 (padding)"));
    tensors_.attention_mask.assign(mask.begin(), mask.end());
    return std::move(tensors_);
  }

 private:
  // Leaves `to` empty when the file has no such tensor.
  template <typename Valid>
  Status ReadChecked(const char* name, std::vector<int32_t>* to, const Valid& valid,
                     const std::string& expected) {
    const TensorEntry* entry = file_.Find(name);
    if (entry == nullptr) return OkStatus();
    switch (entry->type) {
      case StoredType::kI64:
      case StoredType::kI32:
      case StoredType::kI16:
      case StoredType::kI8:
      case StoredType::kU8:
      case StoredType::kBool:
        break;
      default:
        return InvalidArgument("{}: {} is {}; expected I32 or I64", file_.path(), name,
                               entry->ToString());
    }
    if (entry->shape != std::vector<int64_t>{tensors_.rows, tensors_.columns}) {
      return InvalidArgument("{}: {} is {}; expected the shape of input_ids, [{}, {}]",
                             file_.path(), name, entry->ToString(), tensors_.rows,
                             tensors_.columns);
    }
    to->resize(static_cast<size_t>(entry->elements));
    const size_t index = static_cast<size_t>(entry - file_.entries().data());
    TE_RETURN_IF_ERROR(file_.ReadTensor(
        index, TensorView(to->data(), DType::kInt32, {tensors_.rows, tensors_.columns})));
    for (size_t i = 0; i < to->size(); ++i) {
      if (valid((*to)[i])) continue;
      const size_t columns = static_cast<size_t>(tensors_.columns);
      return InvalidArgument("{}: {}[{}, {}] is {}; {}", file_.path(), name, i / columns,
                             i % columns, (*to)[i], expected);
    }
    return OkStatus();
  }

  const SafetensorsFile& file_;
  TokenTensors tensors_;
};

}  // namespace

StatusOr<TokenTensors> ReadTokenTensors(const std::string& path, int64_t vocab_size) {
  TE_ASSIGN_OR_RETURN(InputFile input, InputFile::Open(path));
  return ReadTokenTensors(std::move(input), vocab_size);
}

StatusOr<TokenTensors> ReadTokenTensors(InputFile input, int64_t vocab_size) {
  const std::string path = input.path();
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file,
                      SafetensorsFile::Open(std::move(input)));
  try {
    return Reader(*file).Read(vocab_size);
  } catch (const std::bad_alloc&) {
    return OutOfMemory("{}: the file does not fit into memory", path);
  }
}

}  // namespace te
