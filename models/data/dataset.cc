#include "models/data/dataset.h"

#include <filesystem>
#include <fstream>

#include "models/data/dataset_formats.h"

namespace te {

const char* Name(DataFormat format) {
  switch (format) {
    case DataFormat::kJsonLines:
      return "JSON lines";
    case DataFormat::kText:
      return "plain text, a sample a line";
    case DataFormat::kSafetensors:
      return "token ids";
  }
  return "unknown";
}

StatusOr<DataFormat> DetectDataFormat(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found)
    return NotFound("{}: no such file", path);
  if (status.type() == std::filesystem::file_type::directory) {
    return InvalidArgument("{}: a directory; expected a file (.jsonl, .txt or .safetensors)", path);
  }
  const std::string suffix = std::filesystem::path(path).extension().string();
  for (const char* known : {".jsonl", ".ndjson", ".json"}) {
    if (suffix == known) return DataFormat::kJsonLines;
  }
  for (const char* known : {".txt", ".text", ".md"}) {
    if (suffix == known) return DataFormat::kText;
  }
  if (suffix == ".safetensors") return DataFormat::kSafetensors;
  std::ifstream file(path, std::ios::binary);
  char first = 0;
  if (!file) return IoError("{}: could not be opened", path);
  file >> first;
  return first == '{' ? DataFormat::kJsonLines : DataFormat::kText;
}

StatusOr<std::unique_ptr<Dataset>> OpenDataset(const std::string& path, DataFormat format,
                                               const DatasetOptions& options) {
  if (options.max_sequence_length < 1) {
    return InvalidArgument("maximum sequence length is {}; expected 1 or more",
                           options.max_sequence_length);
  }
  return format == DataFormat::kSafetensors ? OpenTokenDataset(path, options)
                                            : OpenTextDataset(path, format, options);
}

}  // namespace te
