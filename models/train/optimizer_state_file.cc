#include "models/train/optimizer_state_file.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/checkpoint/metadata_number.h"
#include "te_kernels/base/dtype.h"

namespace te {
namespace {

constexpr std::string_view kVersionKey = "te_optimizer_state";
constexpr std::string_view kVersion = "1";
constexpr std::string_view kStreamPrefix = "random_stream.";
constexpr std::string_view kRunPrefix = "run.";
constexpr std::string_view kFirstMoment = ".exp_avg";
constexpr std::string_view kSecondMoment = ".exp_avg_sq";
constexpr std::string_view kMaster = ".master";
constexpr std::string_view kParam = ".param";
constexpr std::string_view kCodes = ".fp8_data";
constexpr size_t kChunkBytes = size_t{1} << 20;

StatusOr<std::string> NameOf(const ParameterNames& names, const Parameter* parameter) {
  const auto found = names.find(parameter);
  if (found == names.end()) return Internal("parameter '{}' has no full name", parameter->name);
  return found->second;
}

// The numbers of a weight that exists in FP8 alone: what its codes are read with, what the next
// ones are written with, and their amax.
struct NamedNumber {
  std::string_view suffix;
  TensorView value;
  bool positive;
};
std::vector<NamedNumber> Fp8Numbers(const Parameter& weight) {
  const QuantizedCopy& copy = weight.quantized;
  const auto view = [](const float* number) {
    return TensorView(const_cast<float*>(number), DType::kFloat32, {1});  // to be loaded
  };
  return {{".fp8_scale_inv", view(copy.spec.scale_inv), true},
          {".fp8_scale", view(copy.slot->scale()), true},
          {".fp8_amax", view(copy.slot->amax()), false}};
}

// The first value that `fits` does not take, in a tensor that is F32 or BF16.
template <typename T, typename Fits>
Status CheckElements(TensorStream* stream, int64_t elements, const char* expected,
                     const Fits& fits) {
  std::vector<T> chunk(static_cast<size_t>(
      std::min<int64_t>(elements, static_cast<int64_t>(kChunkBytes / sizeof(T)))));
  for (int64_t done = 0; done < elements; done += static_cast<int64_t>(chunk.size())) {
    const auto count =
        static_cast<size_t>(std::min<int64_t>(elements - done, static_cast<int64_t>(chunk.size())));
    TE_RETURN_IF_ERROR(stream->Read(chunk.data(), count * sizeof(T)));
    for (size_t i = 0; i < count; ++i) {
      const auto value = static_cast<float>(chunk[i]);
      if (!fits(value)) {
        return CorruptData("element {} is {}; expected {}", done + static_cast<int64_t>(i), value,
                           expected);
      }
    }
  }
  return OkStatus();
}

}  // namespace

// One tensor of the file and where it goes.
struct OptimizerStateFile::Target {
  size_t index = 0;  // of the file's entries
  TensorView to;
  enum class Check { kNone, kNumber, kNotNegative, kPositive } check = Check::kNone;
};

Status WriteOptimizerState(const std::string& path, AdamWOptimizer* optimizer,
                           const ParameterNames& names, const OptimizerStateInfo& info,
                           const std::function<bool(const Parameter&)>& with_value) {
  TE_ASSIGN_OR_RETURN(const AdamWOptimizer::Progress progress, optimizer->ReadProgress());
  Context* context = optimizer->context();
  std::vector<std::pair<std::string, std::string>> metadata = {
      {std::string(kVersionKey), std::string(kVersion)},
      {"step", std::to_string(progress.step)},
      {"position", std::to_string(info.position)},
      {"calibration_steps", std::to_string(info.calibration_steps)},
      {"fp8_tensors", std::to_string(info.fp8_tensors)},
      {"seed", std::to_string(context->options().seed)},
      {"rng_offset", std::to_string(progress.rng_offset)}};
  for (const auto& [key, value] : info.run)
    metadata.emplace_back(fmt::format("{}{}", kRunPrefix, key), value);

  CopyToHost copy;
  if (!context->device().host_accessible()) {
    copy = [context](ConstTensorView from, void* to) { return context->CopyToHost(from, to); };
  }
  std::vector<SafetensorsItem> items;
  const auto add = [&](const std::string& name, std::string_view suffix,
                       const TensorView& value) -> Status {
    TE_ASSIGN_OR_RETURN(SafetensorsItem item,
                        TensorItem(fmt::format("{}{}", name, suffix), value, copy));
    items.push_back(std::move(item));
    return OkStatus();
  };
  for (size_t i = 0; i < optimizer->states().size(); ++i) {
    const AdamWOptimizer::State& state = optimizer->states()[i];
    TE_ASSIGN_OR_RETURN(const std::string name, NameOf(names, state.parameter));
    metadata.emplace_back(fmt::format("{}{}", kStreamPrefix, name),
                          std::to_string(progress.random_streams[i]));
    TE_RETURN_IF_ERROR(add(name, kFirstMoment, state.m.view()));
    TE_RETURN_IF_ERROR(add(name, kSecondMoment, state.v.view()));
    if (state.master.defined()) TE_RETURN_IF_ERROR(add(name, kMaster, state.master.view()));
    if (state.parameter->fp8_only()) {
      TE_RETURN_IF_ERROR(add(name, kCodes, state.parameter->quantized.spec.rowwise_data));
      for (const NamedNumber& number : Fp8Numbers(*state.parameter))
        TE_RETURN_IF_ERROR(add(name, number.suffix, number.value));
    } else if (with_value != nullptr && with_value(*state.parameter)) {
      TE_RETURN_IF_ERROR(add(name, kParam, state.parameter->value.view()));
    }
  }
  return WriteSafetensors(path, items, metadata, /*replace=*/false);
}

StatusOr<std::unique_ptr<OptimizerStateFile>> OptimizerStateFile::Open(const std::string& path) {
  std::unique_ptr<OptimizerStateFile> state(new OptimizerStateFile());
  TE_ASSIGN_OR_RETURN(state->file_, SafetensorsFile::Open(path));
  TE_RETURN_IF_ERROR(state->ReadMetadata().WithContext(path));
  return state;
}

Status OptimizerStateFile::ReadMetadata() {
  std::set<std::string_view> missing = {kVersionKey,   "step", "position",  "calibration_steps",
                                        "fp8_tensors", "seed", "rng_offset"};
  for (const auto& [key, value] : file_->metadata()) {
    missing.erase(key);
    Status status;
    if (key == kVersionKey) {
      if (value != kVersion)
        status = CorruptData("is \"{}\"; this build reads version {}", value, kVersion);
    } else if (key == "step") {
      status = ParseMetadataNumber(value, &info_.step);
    } else if (key == "position") {
      status = ParseMetadataNumber(value, &info_.position);
    } else if (key == "calibration_steps") {
      status = ParseMetadataNumber(value, &info_.calibration_steps);
    } else if (key == "fp8_tensors") {
      status = ParseMetadataNumber(value, &info_.fp8_tensors);
    } else if (key == "seed") {
      status = ParseMetadataNumber(value, &info_.seed);
    } else if (key == "rng_offset") {
      status = ParseMetadataNumber(value, &info_.rng_offset);
    } else if (key.starts_with(kStreamPrefix)) {
      status = ParseMetadataNumber(value, &streams_[key.substr(kStreamPrefix.size())]);
    } else if (key.starts_with(kRunPrefix)) {
      info_.run[key.substr(kRunPrefix.size())] = value;
    } else {
      status = CorruptData(
          "is unknown; expected {}, step, position, calibration_steps, "
          "fp8_tensors, seed, rng_offset, {}NAME and {}KEY",
          kVersionKey, kStreamPrefix, kRunPrefix);
    }
    TE_RETURN_IF_ERROR(status.WithContext("metadata " + key));
  }
  if (missing.contains(kVersionKey)) {
    return CorruptData("metadata {} is missing: no optimizer state file of te", kVersionKey);
  }
  if (!missing.empty()) return CorruptData("metadata {} is missing", *missing.begin());
  return OkStatus();
}

Status OptimizerStateFile::CheckValues(const Target& target) const {
  if (target.check == Target::Check::kNone) return OkStatus();
  const TensorEntry& entry = file_->entries()[target.index];
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<TensorStream> stream, file_->OpenStream(target.index));
  const Target::Check check = target.check;
  const char* expected = check == Target::Check::kPositive      ? "a finite number above 0"
                         : check == Target::Check::kNotNegative ? "0 or more"
                                                                : "a number";
  const auto fits = [check](float value) {
    if (check == Target::Check::kPositive) return value > 0 && std::isfinite(value);
    return check == Target::Check::kNotNegative ? value >= 0 : value == value;
  };
  const Status status = entry.type == StoredType::kF32
                            ? CheckElements<float>(stream.get(), entry.elements, expected, fits)
                            : CheckElements<bfloat16>(stream.get(), entry.elements, expected, fits);
  return status.WithContext(fmt::format("{}: tensor {}", path(), entry.name));
}

Status OptimizerStateFile::Load(AdamWOptimizer* optimizer, const ParameterNames& names) const {
  Context* context = optimizer->context();
  if (info_.seed != context->options().seed) {
    return InvalidArgument("{}: written with seed {}, the context's is {}; expected the same",
                           path(), info_.seed, context->options().seed);
  }
  std::map<std::string_view, size_t> entries;  // that no parameter has claimed yet
  for (size_t i = 0; i < file_->entries().size(); ++i) entries[file_->entries()[i].name] = i;
  std::vector<Target> targets;
  const auto claim = [&](const std::string& name, const TensorView& to, Target::Check check,
                         bool optional) -> Status {
    StoredType type;
    if (!StoredTypeOf(to.dtype(), &type))
      return Internal("no stored type for {}", Name(to.dtype()));
    const auto found = entries.find(name);
    if (found == entries.end()) {
      if (optional) return OkStatus();
      return InvalidArgument("{}: tensor {} is missing; expected {} {}", path(), name,
                             te::Name(type), to.shape().ToString());
    }
    const TensorEntry& entry = file_->entries()[found->second];
    if (entry.type != type || !std::ranges::equal(entry.shape, to.shape().dims())) {
      return InvalidArgument("{}: tensor {} is {}; expected {} {}", path(), name, entry.ToString(),
                             te::Name(type), to.shape().ToString());
    }
    targets.push_back({found->second, to, check});
    entries.erase(found);
    return OkStatus();
  };

  AdamWOptimizer::Progress progress = {.step = info_.step, .rng_offset = info_.rng_offset};
  std::vector<Parameter*> with_value;
  for (const AdamWOptimizer::State& state : optimizer->states()) {
    TE_ASSIGN_OR_RETURN(const std::string name, NameOf(names, state.parameter));
    const auto tensor = [&name](std::string_view suffix) {
      return fmt::format("{}{}", name, suffix);
    };
    TE_RETURN_IF_ERROR(claim(tensor(kFirstMoment), state.m.view(), Target::Check::kNumber, false));
    TE_RETURN_IF_ERROR(
        claim(tensor(kSecondMoment), state.v.view(), Target::Check::kNotNegative, false));
    if (state.master.defined())
      TE_RETURN_IF_ERROR(claim(tensor(kMaster), state.master.view(), Target::Check::kNone, false));
    if (state.parameter->fp8_only()) {
      TE_RETURN_IF_ERROR(claim(tensor(kCodes), state.parameter->quantized.spec.rowwise_data,
                               Target::Check::kNone, false));
      for (const NamedNumber& number : Fp8Numbers(*state.parameter)) {
        TE_RETURN_IF_ERROR(
            claim(tensor(number.suffix), number.value,
                  number.positive ? Target::Check::kPositive : Target::Check::kNotNegative, false));
      }
      with_value.push_back(state.parameter);
    } else {
      const size_t before = targets.size();
      TE_RETURN_IF_ERROR(
          claim(tensor(kParam), state.parameter->value.view(), Target::Check::kNone, true));
      if (targets.size() > before) with_value.push_back(state.parameter);
    }
    const auto stream = streams_.find(name);
    if (stream == streams_.end())
      return CorruptData("{}: metadata {}{} is missing", path(), kStreamPrefix, name);
    progress.random_streams.push_back(stream->second);
  }
  if (!entries.empty()) {
    return InvalidArgument(
        "{}: tensor {} is none of the optimizer's; expected the state of {} "
        "parameters, of each {}, {}{}",
        path(), entries.begin()->first, optimizer->states().size(), kFirstMoment, kSecondMoment,
        optimizer->options().master_weights == MasterWeights::kFloat32 ? " and .master (or .param)"
                                                                       : " (or .param)");
  }
  if (streams_.size() != optimizer->states().size()) {
    return CorruptData("{}: metadata has {} random streams; expected {}, one a trained parameter",
                       path(), streams_.size(), optimizer->states().size());
  }
  try {
    for (const Target& target : targets) TE_RETURN_IF_ERROR(CheckValues(target));
  } catch (const std::bad_alloc&) {
    return OutOfMemory("{}: no memory to check a tensor with", path());
  }
  CopyFromHost copy;
  if (!context->device().host_accessible()) {
    copy = [context](const void* from, TensorView to) { return context->CopyFromHost(from, to); };
  }
  for (const Target& target : targets)
    TE_RETURN_IF_ERROR(file_->ReadTensor(target.index, target.to, copy));
  for (Parameter* parameter : with_value) {
    ++parameter->version;
    if (parameter->fp8_only()) parameter->quantized.MarkWritten(parameter->version);
  }
  return optimizer->WriteProgress(progress);
}

}  // namespace te
