#include <unistd.h>

#include <algorithm>
#include <numeric>

#include "models/checkpoint/output_file.h"
#include "models/checkpoint/safetensors.h"
#include "models/json/json.h"

namespace te {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;

StatusOr<std::string> Header(const std::vector<const SafetensorsItem*>& items,
                             const std::vector<std::pair<std::string, std::string>>& metadata) {
  JsonValue::Members root;
  if (!metadata.empty()) {
    JsonValue::Members strings;
    for (const auto& [key, value] : metadata) strings.push_back({key, JsonValue::String(value)});
    root.push_back({"__metadata__", JsonValue::MakeObject(std::move(strings))});
  }
  int64_t at = 0;
  for (const SafetensorsItem* item : items) {
    JsonValue::Array shape;
    for (int64_t dim : item->shape) shape.push_back(JsonValue::Integer(dim));
    const int64_t end = at + static_cast<int64_t>(item->bytes());
    JsonValue::Members entry = {
        {"dtype", JsonValue::String(Name(item->type))},
        {"shape", JsonValue::MakeArray(std::move(shape))},
        {"data_offsets", JsonValue::MakeArray({JsonValue::Integer(at), JsonValue::Integer(end)})}};
    root.push_back({item->name, JsonValue::MakeObject(std::move(entry))});
    at = end;
  }
  TE_ASSIGN_OR_RETURN(std::string text, WriteJsonLine(JsonValue::MakeObject(std::move(root))));
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxSafetensorsHeader) {
    return InvalidArgument("a header of {} bytes for {} tensors; the format allows at most {}",
                           text.size(), items.size(), kMaxSafetensorsHeader);
  }
  return text;
}

Status WriteItems(const std::vector<const SafetensorsItem*>& items, const std::string& header,
                  OutputFile* file) {
  unsigned char prefix[8];
  for (int i = 0; i < 8; ++i) prefix[i] = static_cast<unsigned char>(header.size() >> (8 * i));
  TE_RETURN_IF_ERROR(file->Write(prefix, sizeof(prefix)));
  TE_RETURN_IF_ERROR(file->Write(header.data(), header.size()));
  for (const SafetensorsItem* item : items) {
    uint64_t written = 0;
    const Status status = item->write([&](const void* bytes, size_t count) {
      written += count;
      return file->Write(bytes, count);
    });
    TE_RETURN_IF_ERROR(status.WithContext("tensor " + item->name));
    if (written != item->bytes()) {
      return Internal("tensor {}: {} bytes were handed over; its shape has {}", item->name, written,
                      item->bytes());
    }
  }
  return file->Finish();
}

}  // namespace

uint64_t SafetensorsItem::bytes() const {
  uint64_t elements = 1;
  for (int64_t dim : shape) elements *= static_cast<uint64_t>(dim);
  return elements * static_cast<uint64_t>(BitsOf(type)) / 8;
}

StatusOr<SafetensorsItem> TensorItem(const std::string& name, ConstTensorView data,
                                     CopyToHost copy) {
  SafetensorsItem item;
  item.name = name;
  if (!StoredTypeOf(data.dtype(), &item.type)) {
    return Unsupported("tensor {}: {} has no safetensors dtype here", name, Name(data.dtype()));
  }
  if (!data.IsDense()) return InvalidArgument("tensor {}: {} is not dense", name, data.ToString());
  item.shape.assign(data.shape().dims().begin(), data.shape().dims().end());
  item.write = [data, copy = std::move(copy)](const SafetensorsItem::Sink& sink) -> Status {
    if (data.bytes() == 0) return OkStatus();
    if (copy == nullptr) return sink(data.data(), data.bytes());
    const size_t size = SizeOf(data.dtype());
    const int64_t piece =
        std::min<int64_t>(data.elements(), static_cast<int64_t>(kPieceBytes / size));
    std::vector<char> staging(static_cast<size_t>(piece) * size);
    for (int64_t done = 0; done < data.elements(); done += piece) {
      const int64_t count = std::min(piece, data.elements() - done);
      const char* from = static_cast<const char*>(data.data()) + static_cast<size_t>(done) * size;
      TE_RETURN_IF_ERROR(copy(ConstTensorView(from, data.dtype(), {count}), staging.data()));
      TE_RETURN_IF_ERROR(sink(staging.data(), static_cast<size_t>(count) * size));
    }
    return OkStatus();
  };
  return item;
}

StatusOr<SafetensorsItem> HostItem(const std::string& name, ConstTensorView data) {
  return TensorItem(name, data, {});
}

Status WriteSafetensors(const std::string& path, const std::vector<SafetensorsItem>& items,
                        const std::vector<std::pair<std::string, std::string>>& metadata,
                        bool replace) {
  std::vector<const SafetensorsItem*> ordered;
  for (const SafetensorsItem& item : items) ordered.push_back(&item);
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const SafetensorsItem* a, const SafetensorsItem* b) {
                     return BitsOf(a->type) > BitsOf(b->type);
                   });
  StatusOr<std::string> header = Header(ordered, metadata);
  if (!header.ok()) return header.status().WithContext(path);
  TE_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(path, replace));
  const Status status = WriteItems(ordered, *header, &file);
  if (!status.ok()) unlink(path.c_str());
  return status.ok() ? status : status.WithContext(path);
}

}  // namespace te
