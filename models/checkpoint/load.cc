#include "models/checkpoint/load.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <unordered_map>

#include "fmt/ranges.h"
#include "models/checkpoint/missing_tensor.h"
#include "te_kernels/cast/cast.h"

namespace te {
namespace {

constexpr int64_t kCompareChunk = 1 << 16;

// The next elements of a stream, as float64 (exact from every floating type).
Status NextAsDouble(TensorStream* stream, StoredType type, int64_t count, std::vector<char>* raw,
                    std::vector<double>* out) {
  raw->resize(static_cast<size_t>(count * BitsOf(type) / 8));
  out->resize(static_cast<size_t>(count));
  TE_RETURN_IF_ERROR(stream->Read(raw->data(), raw->size()));
  DType dtype = DType::kFloat64;
  for (DType candidate : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    StoredType stored;
    if (StoredTypeOf(candidate, &stored) && stored == type) dtype = candidate;
  }
  return CastCpu(Exec{}, {ConstTensorView(raw->data(), dtype, {count}),
                          TensorView(out->data(), DType::kFloat64, {count})});
}

std::string FirstOf(const std::vector<std::string>& names) {
  constexpr size_t kShown = 10;
  if (names.size() <= kShown) return fmt::format("{}", fmt::join(names, ", "));
  return fmt::format("{}, ... ({} in all)", fmt::join(names.begin(), names.begin() + kShown, ", "),
                     names.size());
}

}  // namespace

std::vector<std::string> LoadReport::Warnings() const {
  std::vector<std::string> lines = notes;
  if (!missing.empty()) {
    lines.push_back(
        fmt::format("not in the checkpoint, initialized instead: {}", fmt::join(missing, ", ")));
  }
  if (!extra_layers.empty()) {
    std::set<std::string> layers;
    for (const std::string& name : extra_layers) {
      const size_t digits = name.find_first_of("0123456789");
      if (digits != std::string::npos) layers.insert(name.substr(0, name.find('.', digits)));
    }
    lines.push_back(
        fmt::format("the config has fewer layers than the checkpoint; skipped: {} ({} tensors)",
                    FirstOf({layers.begin(), layers.end()}), extra_layers.size()));
  }
  if (!unexpected.empty()) {
    lines.push_back(fmt::format("tensors of the checkpoint that the model does not use: {}",
                                fmt::join(unexpected, ", ")));
  }
  return lines;
}

Status MissingTensors(const CheckpointReader& reader, std::span<const WantedTensor> wanted,
                      std::span<const WantedTensor* const> absent, const LoadOptions& options) {
  const WantedTensor& first = *absent.front();
  std::vector<std::string> names;
  for (const WantedTensor& want : wanted) names.push_back(want.name);
  std::string more;
  if (absent.size() == wanted.size() && absent.size() > 1) {
    more = fmt::format("; nor is any other of the model's {} tensors", wanted.size());
  } else if (absent.size() > 1) {
    more = fmt::format("; nor are {} others of the model's {} tensors", absent.size() - 1,
                       wanted.size());
  }
  return NotFound("tensor {} of shape {} is in none of the checkpoint's files: {} (in {}){}{}{}",
                  first.name, first.to.shape().ToString(), reader.FileNames(), reader.directory(),
                  more, WhyMissing(reader, first.name, names),
                  options.why_missing == nullptr ? "" : options.why_missing(first.name));
}

Status CheckStored(const CheckpointReader& reader, const CheckpointReader::Tensor& stored,
                   const WantedTensor& wanted) {
  const TensorEntry& entry = *stored.entry;
  const auto dims = wanted.to.shape().dims();
  if (!std::ranges::equal(entry.shape, dims)) {
    std::string hint;
    if (entry.shape.size() == 2 && dims.size() == 2 && entry.shape[0] == dims[1] &&
        entry.shape[1] == dims[0]) {
      hint = " (it is transposed)";
    }
    return CorruptData("{}: tensor {} has shape {}; the config says {}{}{}", reader.PathOf(stored),
                       entry.name, ShapeToString(entry.shape), wanted.to.shape().ToString(),
                       wanted.shape_means.empty() ? "" : fmt::format(" ({})", wanted.shape_means),
                       hint);
  }
  if (!IsFloating(entry.type)) {
    return Unsupported(
        "{}: tensor {} is stored as {}; weights are read from F64, F32, F16 and BF16",
        reader.PathOf(stored), entry.name, Name(entry.type));
  }
  return reader.CheckCopies(wanted.name);
}

Status CheckTied(const CheckpointReader& reader, const TiedTensor& tied) {
  const CheckpointReader::Tensor* alias = reader.Find(tied.alias);
  const CheckpointReader::Tensor* tensor = reader.Find(tied.name);
  if (alias == nullptr || tensor == nullptr) return OkStatus();
  if (alias->entry == tensor->entry) return OkStatus();  // found under the one name for the other
  const auto differ = [&](const std::string& how) {
    return CorruptData(
        "{}: {} is tied to {} (tie_word_embeddings), but they differ: {}; untie them in "
        "config.json, or drop {}",
        reader.PathOf(*alias), tied.alias, tied.name, how, tied.alias);
  };
  if (alias->entry->shape != tensor->entry->shape) {
    return differ(fmt::format("shapes {} and {}", ShapeToString(alias->entry->shape),
                              ShapeToString(tensor->entry->shape)));
  }
  if (!IsFloating(alias->entry->type))
    return differ("dtype " + std::string(Name(alias->entry->type)));
  if (!IsFloating(tensor->entry->type))
    return differ("dtype " + std::string(Name(tensor->entry->type)));
  TE_ASSIGN_OR_RETURN(auto a, reader.OpenStream(*alias));
  TE_ASSIGN_OR_RETURN(auto b, reader.OpenStream(*tensor));
  std::vector<char> raw;
  std::vector<double> x, y;
  for (int64_t done = 0; done < alias->entry->elements; done += kCompareChunk) {
    const int64_t count = std::min(kCompareChunk, alias->entry->elements - done);
    TE_RETURN_IF_ERROR(NextAsDouble(a.get(), alias->entry->type, count, &raw, &x)
                           .WithContext(reader.PathOf(*alias)));
    TE_RETURN_IF_ERROR(NextAsDouble(b.get(), tensor->entry->type, count, &raw, &y)
                           .WithContext(reader.PathOf(*tensor)));
    for (int64_t i = 0; i < count; ++i) {
      if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
      return differ(fmt::format("element {} is {} and {}", done + i, x[i], y[i]));
    }
  }
  return OkStatus();
}

LoadReport SurplusTensors(const CheckpointReader& reader, std::span<const WantedTensor> wanted,
                          const LoadOptions& options) {
  LoadReport report;
  std::set<std::string_view> known;
  for (const WantedTensor& want : wanted) known.insert(want.name);
  for (const TiedTensor& tied : options.tied) known.insert(tied.alias);
  for (const auto& [name, tensor] : reader.tensors()) {
    if (known.contains(name)) continue;
    switch (options.classify == nullptr ? ExtraTensor::kUnexpected : options.classify(name)) {
      case ExtraTensor::kUnexpected:
        report.unexpected.push_back(name);
        break;
      case ExtraTensor::kIgnored:
        report.ignored.push_back(name);
        break;
      case ExtraTensor::kExtraLayer:
        report.extra_layers.push_back(name);
        break;
    }
  }
  return report;
}

StatusOr<LoadReport> LoadParameters(const CheckpointReader& reader,
                                    std::span<const WantedTensor> wanted,
                                    const LoadOptions& options) {
  struct Job {
    const CheckpointReader::Tensor* tensor;
    const WantedTensor* wanted;
  };
  LoadReport report;
  std::vector<Job> jobs;
  std::vector<const WantedTensor*> absent;
  uint64_t total = 0;
  for (const WantedTensor& want : wanted) {
    const CheckpointReader::Tensor* tensor = reader.Find(want.name);
    for (const TiedTensor& tied : options.tied) {
      if (tensor == nullptr && tied.name == want.name) tensor = reader.Find(tied.alias);
    }
    if (tensor == nullptr) {
      absent.push_back(&want);
      report.missing.push_back(want.name);
      continue;
    }
    TE_RETURN_IF_ERROR(CheckStored(reader, *tensor, want));
    jobs.push_back({tensor, &want});
    total += tensor->entry->bytes();
  }
  if (!absent.empty() && (!options.allow_missing || jobs.empty()))
    return MissingTensors(reader, wanted, absent, options);
  for (const TiedTensor& tied : options.tied) TE_RETURN_IF_ERROR(CheckTied(reader, tied));
  LoadReport surplus = SurplusTensors(reader, wanted, options);
  surplus.missing = std::move(report.missing);
  report = std::move(surplus);
  std::stable_sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) {
    return std::pair(a.tensor->file, a.tensor->index) < std::pair(b.tensor->file, b.tensor->index);
  });
  uint64_t done = 0;
  for (const Job& job : jobs) {
    TensorView to = job.wanted->to;
    if (job.wanted->place != nullptr) {
      TE_ASSIGN_OR_RETURN(to, job.wanted->place());
    }
    TE_RETURN_IF_ERROR(reader.files()[job.tensor->file]->ReadTensor(job.tensor->index, to,
                                                                    options.copy_from_host));
    if (job.wanted->done != nullptr)
      TE_RETURN_IF_ERROR(job.wanted->done().WithContext(job.wanted->name));
    done += job.tensor->entry->bytes();
    if (options.progress != nullptr) options.progress(done, total);
  }
  return report;
}

}  // namespace te
