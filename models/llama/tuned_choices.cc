#include "models/llama/tuned_choices.h"

#include "models/checkpoint/output_file.h"
#include "models/json/json.h"

namespace te {
namespace {

constexpr size_t kMaxBytes = size_t{16} << 20;

}  // namespace

StatusOr<ChoicesFile> PinChoicesOf(const std::string& path, Context* context) {
  const StatusOr<std::string> text = ReadTextFile(path, kMaxBytes);
  if (text.status().code() == StatusCode::kNotFound) return ChoicesFile::kAbsent;
  TE_RETURN_IF_ERROR(text.status());
  const StatusOr<bool> pinned = context->device().PinChoices(context->exec(), *text, PinAs::kOwn);
  if (!pinned.ok()) return pinned.status().WithContext(path);
  return *pinned ? ChoicesFile::kPinned : ChoicesFile::kOfAnother;
}

Status WriteChoices(const std::string& path, Context* context, WhichChoices which) {
  TE_ASSIGN_OR_RETURN(const std::string text,
                      context->device().TunedChoices(context->exec(), which));
  if (text.empty()) return OkStatus();
  return ReplaceFile(path, [&text](const std::string& new_path) -> Status {
    TE_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(new_path, true));
    TE_RETURN_IF_ERROR(file.Write(text.data(), text.size()));
    return file.Finish();
  });
}

}  // namespace te
