#include "models/data/dataset.h"

#include <filesystem>
#include <utility>

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

StatusOr<DataFormat> DetectDataFormat(DataInput* input) {
  const std::string suffix = std::filesystem::path(input->path()).extension().string();
  for (const char* known : {".jsonl", ".ndjson", ".json"}) {
    if (suffix == known) return DataFormat::kJsonLines;
  }
  for (const char* known : {".txt", ".text", ".md"}) {
    if (suffix == known) return DataFormat::kText;
  }
  if (suffix == ".safetensors") return DataFormat::kSafetensors;
  constexpr size_t kBlockBytes = 4096;
  TE_ASSIGN_OR_RETURN(const std::string_view block, input->Peek(kBlockBytes));
  const size_t first = block.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && block[first] == '{' ? DataFormat::kJsonLines
                                                                : DataFormat::kText;
}

StatusOr<std::unique_ptr<Dataset>> OpenDataset(DataInput input, DataFormat format,
                                               const DatasetOptions& options) {
  if (options.max_sequence_length < 1) {
    return InvalidArgument("maximum sequence length is {}; expected 1 or more",
                           options.max_sequence_length);
  }
  return format == DataFormat::kSafetensors ? OpenTokenDataset(std::move(input), options)
                                            : OpenTextDataset(std::move(input), format, options);
}

}  // namespace te
