#include "models/llama/saved_values.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "fmt/format.h"

namespace te {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;
constexpr size_t kNamed = 3;  // tensors that a message names

// Elements whose exponent is that of NaN and infinity.
template <typename Word>
StatusOr<int64_t> CountIn(TensorStream* stream, int64_t elements, Word exponent) {
  std::vector<Word> chunk(static_cast<size_t>(
      std::min<int64_t>(elements, static_cast<int64_t>(kChunkBytes / sizeof(Word)))));
  int64_t count = 0;
  for (int64_t left = elements; left > 0;) {
    const auto now = std::min<int64_t>(left, static_cast<int64_t>(chunk.size()));
    TE_RETURN_IF_ERROR(stream->Read(chunk.data(), static_cast<size_t>(now) * sizeof(Word)));
    count += std::count_if(chunk.begin(), chunk.begin() + now,
                           [exponent](Word x) { return (x & exponent) == exponent; });
    left -= now;
  }
  return count;
}

// How many of a stored tensor's values are no numbers.
StatusOr<int64_t> CountStored(const CheckpointReader& reader,
                              const CheckpointReader::Tensor& stored) {
  TE_ASSIGN_OR_RETURN(const std::unique_ptr<TensorStream> stream, reader.OpenStream(stored));
  const int64_t elements = stored.entry->elements;
  switch (stored.entry->type) {
    case StoredType::kF64:
      return CountIn<uint64_t>(stream.get(), elements, 0x7ff0000000000000u);
    case StoredType::kF32:
      return CountIn<uint32_t>(stream.get(), elements, 0x7f800000u);
    case StoredType::kF16:
      return CountIn<uint16_t>(stream.get(), elements, 0x7c00);
    case StoredType::kBF16:
      return CountIn<uint16_t>(stream.get(), elements, 0x7f80);
    default:
      return 0;
  }
}

StatusOr<DType> DTypeOf(StoredType wanted) {
  for (DType dtype : {DType::kFloat64, DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    StoredType type;
    if (StoredTypeOf(dtype, &type) && type == wanted) return dtype;
  }
  return Internal("no dtype for {}", Name(wanted));
}

const char* LargestOf(DType dtype) {
  return dtype == DType::kFloat16 ? "65504" : dtype == DType::kBFloat16 ? "3.39e38" : "3.4e38";
}

// What is known of one tensor with values that are no numbers.
struct Finding {
  std::string name;
  int64_t count = 0;  // as it would be saved
  int64_t elements = 0;
  int64_t in_source = 0;  // in the file that it was read from
  int64_t too_large = 0;  // numbers that the type to be saved in cannot hold
  DType as = DType::kFloat32;

  std::string ToString() const {
    std::string why;
    if (in_source > 0) why = in_source == count ? "they were read so" : "some were read so";
    if (too_large > 0) {
      why += fmt::format("{}{} beyond {}'s largest, {}", why.empty() ? "" : ", ",
                         too_large == count ? "all" : std::to_string(too_large), Name(as),
                         LargestOf(as));
    }
    return fmt::format("{} {} of {}{}", name, count, elements, why.empty() ? "" : " (" + why + ")");
  }
};

class Checker {
 public:
  Checker(Context* context, std::span<const SaveTensor> tensors, std::span<const NamedValue> others,
          const CheckpointReader* source)
      : context_(context), tensors_(tensors), others_(others), source_(source) {}

  Status Run() {
    TE_RETURN_IF_ERROR(CountAll());
    for (size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] != 0) TE_RETURN_IF_ERROR(LookCloser(i));
    }
    return findings_.empty() ? OkStatus() : Refusal();
  }

 private:
  // Of tensor i; what is made for this is kept until the next call.
  StatusOr<ConstTensorView> ValueOf(size_t i) {
    if (i >= tensors_.size()) return others_[i - tensors_.size()].second;
    const SaveTensor& tensor = tensors_[i];
    return tensor.make_value != nullptr ? tensor.make_value() : tensor.value;
  }
  StatusOr<DType> SavedAs(size_t i) const {
    if (i >= tensors_.size()) return others_[i - tensors_.size()].second.dtype();
    return DTypeOf(tensors_[i].type);
  }

  Status CountAll() {
    const size_t n = tensors_.size() + others_.size();
    const ArenaScope scope(context_->scratch());
    TE_ASSIGN_OR_RETURN(const TensorView counts,
                        context_->scratch()->Allocate(DType::kInt64, {static_cast<int64_t>(n)}));
    TE_RETURN_IF_ERROR(context_->Zero(counts));
    for (size_t i = 0; i < n; ++i) {
      TE_ASSIGN_OR_RETURN(const ConstTensorView value, ValueOf(i));
      TE_ASSIGN_OR_RETURN(const DType as, SavedAs(i));
      TE_RETURN_IF_ERROR(Count(value, as, counts.as<int64_t>() + i));
    }
    counts_.resize(n);
    return context_->CopyToHost(counts, counts_.data());
  }

  Status Count(const ConstTensorView& value, DType as, int64_t* count) {
    if (value.elements() == 0) return OkStatus();
    return context_->kernels().count_nonfinite(context_->exec(),
                                               {.x = value, .as = as, .count = count});
  }

  Status LookCloser(size_t i) {
    Finding found = {.count = counts_[i]};
    TE_ASSIGN_OR_RETURN(found.as, SavedAs(i));
    TE_ASSIGN_OR_RETURN(const ConstTensorView value, ValueOf(i));
    found.elements = value.elements();
    if (i >= tensors_.size()) {
      found.name = others_[i - tensors_.size()].first;
    } else {
      const SaveTensor& tensor = tensors_[i];
      found.name = tensor.name;
      const CheckpointReader::Tensor* taken_over = UnchangedSource(tensor);
      const CheckpointReader* reader = taken_over != nullptr ? tensor.unchanged_in : source_;
      const CheckpointReader::Tensor* stored = taken_over != nullptr ? taken_over
                                               : reader != nullptr   ? reader->Find(tensor.name)
                                                                     : nullptr;
      if (stored != nullptr) {
        TE_ASSIGN_OR_RETURN(found.in_source, CountStored(*reader, *stored));
      }
      if (taken_over != nullptr) {
        // The model's dtype may not hold what the file does.
        found.count = found.in_source;
        if (found.count == 0) return OkStatus();
      } else {
        found.in_source = std::min(found.in_source, found.count);
        TE_RETURN_IF_ERROR(CountTooLarge(tensor, value, &found));
      }
    }
    findings_.push_back(std::move(found));
    return OkStatus();
  }

  // Numbers in the model that are none as they are saved; where nothing was trained, also those
  // that were too large for the model's dtype when they were read.
  Status CountTooLarge(const SaveTensor& tensor, const ConstTensorView& value, Finding* found) {
    if (tensor.unchanged_in != nullptr) {
      found->too_large = found->count - found->in_source;
      return OkStatus();
    }
    const ArenaScope scope(context_->scratch());
    TE_ASSIGN_OR_RETURN(const TensorView count, context_->scratch()->Allocate(DType::kInt64, {1}));
    TE_RETURN_IF_ERROR(context_->Zero(count));
    TE_RETURN_IF_ERROR(Count(value, value.dtype(), count.as<int64_t>()));
    int64_t no_numbers_before = 0;
    TE_RETURN_IF_ERROR(context_->CopyToHost(count, &no_numbers_before));
    found->too_large = found->count - no_numbers_before;
    return OkStatus();
  }

  Status Refusal() const {
    std::string names;
    for (size_t i = 0; i < std::min(findings_.size(), kNamed); ++i)
      names += (i == 0 ? "" : ", ") + findings_[i].ToString();
    if (findings_.size() > kNamed) names += fmt::format(" and {} more", findings_.size() - kNamed);
    const auto any = [this](auto&& which) { return std::ranges::any_of(findings_, which); };
    std::vector<std::string> advice;
    if (any([](const Finding& f) { return f.count > f.in_source + f.too_large; })) {
      advice.emplace_back(
          "train with a lower learning rate or gradient clipping (--max-grad-norm 1)");
    }
    if (any([](const Finding& f) { return f.too_large > 0; }))
      advice.emplace_back("save in a dtype that holds them (--save-dtype fp32 or bf16)");
    if (source_ != nullptr && any([](const Finding& f) { return f.in_source > 0; }))
      advice.push_back(fmt::format("look at the checkpoint in {}", source_->directory()));
    advice.emplace_back("--allow-nonfinite (C: allow_nonfinite) saves them nevertheless");
    return FailedPrecondition(
        "{} of {} tensors would be saved with values that are NaN or infinite: {}; nothing was "
        "replaced; {}",
        findings_.size(), counts_.size(), names, fmt::join(advice, "; "));
  }

  Context* context_;
  std::span<const SaveTensor> tensors_;
  std::span<const NamedValue> others_;
  const CheckpointReader* source_;
  std::vector<int64_t> counts_;
  std::vector<Finding> findings_;
};

}  // namespace

Status CheckSavedValues(Context* context, std::span<const SaveTensor> tensors,
                        std::span<const NamedValue> others, const CheckpointReader* source) {
  return Checker(context, tensors, others, source).Run();
}

}  // namespace te
