#include "models/quantization/fp8_state_file.h"

#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "models/checkpoint/metadata_number.h"
#include "models/checkpoint/safetensors.h"
#include "models/quantization/fp8_options.h"

namespace te {
namespace {

constexpr std::string_view kVersionKey = "te_fp8_state";
constexpr std::string_view kVersion = "1";
constexpr std::string_view kRecipeKey = "recipe";
constexpr std::string_view kStepKey = "step";
constexpr std::string_view kFormatPrefix = "format.";
constexpr std::string_view kScale = ".scale";
constexpr std::string_view kHistory = ".amax_history";
constexpr int64_t kMaxHistory = 1 << 20;  // of MakeRecipe

StatusOr<QuantFormat> ParseFormat(std::string_view name) {
  for (QuantFormat format : {QuantFormat::kFloat8E4M3, QuantFormat::kFloat8E5M2})
    if (name == Name(format)) return format;
  return CorruptData("format is \"{}\"; expected e4m3 or e5m2", name);
}

StatusOr<std::vector<float>> ReadFloats(const SafetensorsFile& file, size_t index) {
  const TensorEntry& entry = file.entries()[index];
  if (entry.type != StoredType::kF32 || entry.shape.size() != 1 || entry.elements < 1 ||
      entry.elements > kMaxHistory) {
    return CorruptData("{}: {} is {}; expected F32 [1] to F32 [{}]", file.path(), entry.name,
                       entry.ToString(), kMaxHistory);
  }
  std::vector<float> values(static_cast<size_t>(entry.elements));
  TE_RETURN_IF_ERROR(
      file.ReadTensor(index, TensorView(values.data(), DType::kFloat32, {entry.elements})));
  return values;
}

// What stands in the file about one slot.
struct Parts {
  std::optional<QuantFormat> format;
  std::vector<float> scale;
  std::vector<float> history;
};

Status ReadMetadata(const SafetensorsFile& file, Fp8State* state,
                    std::map<std::string, Parts>* slots) {
  bool has_version = false;
  for (const auto& [key, value] : file.metadata()) {
    if (key == kVersionKey) {
      has_version = true;
      if (value != kVersion) {
        return CorruptData("{}: metadata {} is \"{}\"; this build reads version {}", file.path(),
                           key, value, kVersion);
      }
    } else if (key == kRecipeKey) {
      state->recipe = value;
    } else if (key == kStepKey) {
      int64_t step = 0;
      TE_RETURN_IF_ERROR(ParseMetadataNumber(value, &step)
                             .WithContext(fmt::format("{}: metadata {}", file.path(), key)));
      state->step = step;
    } else if (key.starts_with(kFormatPrefix)) {
      StatusOr<QuantFormat> format = ParseFormat(value);
      if (!format.ok())
        return format.status().WithContext(fmt::format("{}: metadata {}", file.path(), key));
      (*slots)[key.substr(kFormatPrefix.size())].format = *format;
    } else {
      return CorruptData("{}: unknown metadata key {}; expected {}, {}, {} and {}SLOT", file.path(),
                         key, kVersionKey, kRecipeKey, kStepKey, kFormatPrefix);
    }
  }
  if (!has_version) {
    return CorruptData("{}: metadata {} is missing: no FP8 state file of te", file.path(),
                       kVersionKey);
  }
  return OkStatus();
}

Status CheckSlot(const std::string& path, const std::string& name, const Parts& parts) {
  if (!parts.format) return CorruptData("{}: metadata {}{} is missing", path, kFormatPrefix, name);
  if (parts.scale.empty()) return CorruptData("{}: {}{} is missing", path, name, kScale);
  if (parts.history.empty()) return CorruptData("{}: {}{} is missing", path, name, kHistory);
  if (parts.scale.size() != 1) {
    return CorruptData("{}: {}{} has {} elements; expected 1", path, name, kScale,
                       parts.scale.size());
  }
  if (!(parts.scale[0] > 0) || !std::isfinite(parts.scale[0])) {
    return CorruptData("{}: {}{} is {}; expected a finite number above 0", path, name, kScale,
                       parts.scale[0]);
  }
  for (size_t i = 0; i < parts.history.size(); ++i) {
    if (!(parts.history[i] >= 0)) {
      return CorruptData("{}: {}{}[{}] is {}; expected 0 or more", path, name, kHistory, i,
                         parts.history[i]);
    }
  }
  return OkStatus();
}

}  // namespace

Status WriteFp8State(const std::string& path, const Fp8State& state) {
  std::vector<SafetensorsItem> items;
  std::vector<std::pair<std::string, std::string>> metadata = {
      {std::string(kVersionKey), std::string(kVersion)}, {std::string(kRecipeKey), state.recipe}};
  if (state.step) metadata.emplace_back(kStepKey, std::to_string(*state.step));
  for (const DelayedScalingState::Saved& slot : state.slots) {
    TE_ASSIGN_OR_RETURN(SafetensorsItem scale,
                        HostItem(fmt::format("{}{}", slot.name, kScale),
                                 ConstTensorView(&slot.scale, DType::kFloat32, {1})));
    TE_ASSIGN_OR_RETURN(
        SafetensorsItem history,
        HostItem(fmt::format("{}{}", slot.name, kHistory),
                 ConstTensorView(slot.amax_history.data(), DType::kFloat32,
                                 {static_cast<int64_t>(slot.amax_history.size())})));
    items.push_back(std::move(scale));
    items.push_back(std::move(history));
    metadata.emplace_back(fmt::format("{}{}", kFormatPrefix, slot.name), Name(slot.format));
  }
  return WriteSafetensors(path, items, metadata, /*replace=*/false);
}

StatusOr<Fp8State> ReadFp8State(const std::string& path) {
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
  Fp8State state;
  std::map<std::string, Parts> slots;
  TE_RETURN_IF_ERROR(ReadMetadata(*file, &state, &slots));
  for (size_t i = 0; i < file->entries().size(); ++i) {
    const std::string& name = file->entries()[i].name;
    const bool is_scale = name.ends_with(kScale);
    if (!is_scale && !name.ends_with(kHistory)) {
      return CorruptData("{}: tensor {}; expected names that end in {} or {}", path, name, kScale,
                         kHistory);
    }
    const std::string slot =
        name.substr(0, name.size() - (is_scale ? kScale.size() : kHistory.size()));
    TE_ASSIGN_OR_RETURN((is_scale ? slots[slot].scale : slots[slot].history), ReadFloats(*file, i));
  }
  for (auto& [name, parts] : slots) {
    TE_RETURN_IF_ERROR(CheckSlot(path, name, parts));
    state.slots.push_back({.name = name,
                           .format = *parts.format,
                           .scale = parts.scale[0],
                           .amax_history = std::move(parts.history)});
  }
  return state;
}

int64_t CountModules(const Fp8State& state) {
  std::set<std::string_view> modules;
  for (const DelayedScalingState::Saved& slot : state.slots)
    modules.insert(std::string_view(slot.name).substr(0, slot.name.rfind('.')));
  return static_cast<int64_t>(modules.size());
}

StatusOr<Fp8State> ExportFp8State(Context* context, const std::vector<std::string>& modules,
                                  std::string recipe, int64_t step) {
  Fp8State state;
  state.recipe = std::move(recipe);
  state.step = step;
  TE_ASSIGN_OR_RETURN(state.slots, context->delayed_scaling().Export(context->exec()));
  const std::set<std::string> wanted(modules.begin(), modules.end());
  std::erase_if(state.slots, [&wanted](const DelayedScalingState::Saved& slot) {
    return !wanted.contains(slot.name.substr(0, slot.name.rfind('.')));
  });
  return state;
}

StatusOr<Fp8StateFit> FitFp8State(const std::string& path, const Recipe& recipe, int64_t num_layers,
                                  bool evaluation, Fp8State* state) {
  struct Wanted {
    const Recipe* recipe = nullptr;
    TensorQuantization quantization;
  };
  std::map<std::string, Wanted> model;
  for (const std::string& module : QuantizedModules(num_layers)) {
    const Recipe* chosen = recipe.ForModule({}, module, !evaluation);
    for (const char* tensor : {"input", "weight", "grad_output"}) {
      Wanted& wanted = model[fmt::format("{}.{}", module, tensor)];
      if (chosen == nullptr || (evaluation && std::string_view(tensor) == "grad_output")) continue;
      wanted = {.recipe = chosen, .quantization = chosen->For({{}, tensor, module})};
    }
  }
  // Attention is quantized in training alone.
  for (const std::string& module : AttentionModules(num_layers)) {
    const Recipe* chosen = recipe.ForModule({}, module, !evaluation);
    for (int i = 0; i < kAttentionTensors; ++i) {
      const auto tensor = static_cast<AttentionTensor>(i);
      Wanted& wanted = model[fmt::format("{}.{}", module, Name(tensor))];
      if (chosen == nullptr || evaluation) continue;
      wanted = {.recipe = chosen, .quantization = chosen->ForAttention(tensor)};
    }
  }
  Fp8StateFit fit;
  std::set<std::string> present;
  std::vector<DelayedScalingState::Saved> used;
  for (DelayedScalingState::Saved& slot : state->slots) {
    const auto found = model.find(slot.name);
    if (found == model.end()) {
      return InvalidArgument("{}: {} is no quantized tensor of the model's {} layers", path,
                             slot.name, num_layers);
    }
    const TensorQuantization& q = found->second.quantization;
    if (!q.delayed()) {
      ++fit.unused;
      continue;
    }
    const auto length = static_cast<int64_t>(slot.amax_history.size());
    if (slot.format != q.format || length != q.amax_history_len) {
      return InvalidArgument(
          "{}: {} has format {} and a history of {}, but the recipe {} asks for {} and {}; "
          "expected "
          "the recipe that the file was written with ({}), or no such file: then calibration "
          "begins anew",
          path, slot.name, Name(slot.format), length, found->second.recipe->name(), Name(q.format),
          q.amax_history_len, state->recipe);
    }
    present.insert(slot.name);
    used.push_back(std::move(slot));
  }
  for (const auto& [name, wanted] : model)
    if (wanted.quantization.delayed() && !present.contains(name)) ++fit.missing;
  fit.used = static_cast<int64_t>(used.size());
  state->slots = std::move(used);
  return fit;
}

}  // namespace te
