#include "te_core/layers/rotary_position_embedding.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <numbers>

namespace te {
namespace {

// NaN fails.
bool IsPositive(double value) { return std::isfinite(value) && value > 0; }

int64_t OriginalLength(const RotaryOptions& options) {
  const int64_t original = options.scaling.original_max_position_embeddings;
  return original != 0 ? original : options.max_position_embeddings;
}

Status CheckPositive(const char* name, double value) {
  if (IsPositive(value)) return OkStatus();
  return InvalidArgument("rotary position embedding: {} is {}; expected a positive number", name,
                         value);
}

Status CheckOriginalLength(const RotaryOptions& options) {
  if (OriginalLength(options) > 0) return OkStatus();
  return InvalidArgument(
      "rotary position embedding: original_max_position_embeddings is {} and "
      "max_position_embeddings is {}; this "
      "scaling needs one of them to be positive",
      options.scaling.original_max_position_embeddings, options.max_position_embeddings);
}

Status CheckScaling(const RotaryOptions& options, int64_t rotary_dim) {
  const RopeScaling& scaling = options.scaling;
  if (scaling.type == RopeType::kDefault) return OkStatus();
  TE_RETURN_IF_ERROR(CheckPositive("factor", scaling.factor));
  switch (scaling.type) {
    case RopeType::kDefault:
    case RopeType::kLinear:
      return OkStatus();
    case RopeType::kDynamic:
      if (options.max_position_embeddings <= 0) {
        return InvalidArgument(
            "rotary position embedding: max_position_embeddings is {}; dynamic scaling needs a "
            "positive number",
            options.max_position_embeddings);
      }
      if (rotary_dim <= 2) {
        return InvalidArgument(
            "rotary position embedding: {} rotated elements a head; dynamic scaling needs more "
            "than 2",
            rotary_dim);
      }
      return OkStatus();
    case RopeType::kLlama3:
      TE_RETURN_IF_ERROR(CheckPositive("low_freq_factor", scaling.low_freq_factor));
      TE_RETURN_IF_ERROR(CheckPositive("high_freq_factor", scaling.high_freq_factor));
      if (scaling.high_freq_factor <= scaling.low_freq_factor) {
        return InvalidArgument(
            "rotary position embedding: high_freq_factor is {}; expected more than "
            "low_freq_factor, {}",
            scaling.high_freq_factor, scaling.low_freq_factor);
      }
      return CheckOriginalLength(options);
    case RopeType::kYarn:
      TE_RETURN_IF_ERROR(CheckPositive("beta_fast", scaling.beta_fast));
      TE_RETURN_IF_ERROR(CheckPositive("beta_slow", scaling.beta_slow));
      if (scaling.attention_factor) {
        TE_RETURN_IF_ERROR(CheckPositive("attention_factor", *scaling.attention_factor));
      }
      for (const auto& [name, value] : {std::pair("mscale", scaling.mscale),
                                        std::pair("mscale_all_dim", scaling.mscale_all_dim)}) {
        if (value && !(std::isfinite(*value) && *value >= 0)) {
          return InvalidArgument("rotary position embedding: {} is {}; expected 0 or more", name,
                                 *value);
        }
      }
      if (options.rotary_base == 1) {
        return InvalidArgument(
            "rotary position embedding: rotary_base is 1; yarn scaling needs another one");
      }
      return CheckOriginalLength(options);
  }
  return InvalidArgument(
      "rotary position embedding: rope type is {}; expected 0 (default) to 4 (yarn)",
      static_cast<int>(scaling.type));
}

// base^(2r / d) in float32, as the reference has it: both arguments are rounded first.
std::vector<float> Wavelengths(float base, int64_t d) {
  std::vector<float> out(d / 2);
  for (int64_t r = 0; r < d / 2; ++r) {
    out[r] = std::pow(base, static_cast<float>(2 * r) / static_cast<float>(d));
  }
  return out;
}

std::vector<float> Inverse(std::vector<float> values) {
  for (float& v : values) v = 1.0f / v;
  return values;
}

float DynamicBase(const RotaryOptions& options, int64_t d, int64_t base_length) {
  const double factor = options.scaling.factor;
  const double longest = static_cast<double>(options.max_position_embeddings);
  const double exponent = static_cast<double>(d) / static_cast<double>(d - 2);
  const double n = static_cast<double>(base_length);
  return static_cast<float>(options.rotary_base *
                            std::pow(factor * n / longest - (factor - 1), exponent));
}

void ScaleLlama3(const RotaryOptions& options, std::vector<float>* inverse) {
  const RopeScaling& scaling = options.scaling;
  const auto original = static_cast<float>(OriginalLength(options));
  const auto factor = static_cast<float>(scaling.factor);
  const auto low = static_cast<float>(scaling.low_freq_factor);
  const auto range = static_cast<float>(scaling.high_freq_factor - scaling.low_freq_factor);
  const double length = static_cast<double>(OriginalLength(options));
  const auto low_wavelength = static_cast<float>(length / scaling.low_freq_factor);
  const auto high_wavelength = static_cast<float>(length / scaling.high_freq_factor);
  for (float& f : *inverse) {
    const float wavelength = (1.0f / f) * static_cast<float>(2 * std::numbers::pi);
    if (wavelength < high_wavelength) continue;
    if (wavelength > low_wavelength) {
      f /= factor;
    } else {
      const float smooth = ((1.0f / wavelength) * original - low) / range;
      f = (1.0f - smooth) * f / factor + smooth * f;
    }
  }
}

// Index r (not rounded) whose frequency turns `rotations` times over the original length (YaRN,
// section 3.2).
double CorrectionIndex(double rotations, double d, double base, double length) {
  return d * std::log(length / (rotations * 2 * std::numbers::pi)) / (2 * std::log(base));
}

float YarnAttentionFactor(const RopeScaling& scaling) {
  if (scaling.attention_factor) return static_cast<float>(*scaling.attention_factor);
  const auto scale = [&](double mscale) {
    return scaling.factor <= 1 ? 1.0 : 0.1 * mscale * std::log(scaling.factor) + 1.0;
  };
  // Zero counts as absent, as in the reference.
  const double mscale = scaling.mscale.value_or(0);
  const double all = scaling.mscale_all_dim.value_or(0);
  return static_cast<float>(mscale != 0 && all != 0 ? scale(mscale) / scale(all) : scale(1));
}

std::vector<float> YarnFrequencies(const RotaryOptions& options, int64_t d) {
  const RopeScaling& scaling = options.scaling;
  const double length = static_cast<double>(OriginalLength(options));
  double low =
      CorrectionIndex(scaling.beta_fast, static_cast<double>(d), options.rotary_base, length);
  double high =
      CorrectionIndex(scaling.beta_slow, static_cast<double>(d), options.rotary_base, length);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(d - 1));
  if (low == high) high += 0.001;  // the reference's way around 0 / 0
  const auto begin = static_cast<float>(low);
  const auto range = static_cast<float>(high - low);
  std::vector<float> out = Wavelengths(static_cast<float>(options.rotary_base), d);
  for (int64_t r = 0; r < d / 2; ++r) {
    const float ramp = std::clamp((static_cast<float>(r) - begin) / range, 0.0f, 1.0f);
    const float kept = 1.0f - ramp;
    const float extrapolated = 1.0f / out[r];
    const float interpolated = 1.0f / (static_cast<float>(scaling.factor) * out[r]);
    out[r] = interpolated * (1.0f - kept) + extrapolated * kept;
  }
  return out;
}

}  // namespace

StatusOr<std::unique_ptr<RotaryPositionEmbedding>> RotaryPositionEmbedding::Create(
    Context* context, const RotaryOptions& options) {
  if (context == nullptr) return InvalidArgument("rotary position embedding: context is null");
  if (options.dim <= 0) {
    return InvalidArgument("rotary position embedding: dim is {}; expected a positive number",
                           options.dim);
  }
  if (!(options.rotary_percent > 0 && options.rotary_percent <= 1)) {
    return InvalidArgument(
        "rotary position embedding: rotary_percent is {}; expected a number in (0, 1]",
        options.rotary_percent);
  }
  TE_RETURN_IF_ERROR(CheckPositive("rotary_base", options.rotary_base));
  const auto rotary_dim =
      static_cast<int64_t>(static_cast<double>(options.dim) * options.rotary_percent);
  if (rotary_dim == 0 || rotary_dim % 2 != 0) {
    return InvalidArgument(
        "rotary position embedding: dim {} and rotary_percent {} make {} rotated elements; "
        "expected a positive even "
        "number",
        options.dim, options.rotary_percent, rotary_dim);
  }
  TE_RETURN_IF_ERROR(CheckScaling(options, rotary_dim));
  return std::unique_ptr<RotaryPositionEmbedding>(
      new RotaryPositionEmbedding(context, options, rotary_dim));
}

int64_t RotaryPositionEmbedding::BaseLength(int64_t length) const {
  const bool depends =
      options_.scaling.type == RopeType::kDynamic && length > options_.max_position_embeddings;
  return depends ? length : 0;
}

RotaryPositionEmbedding::Frequencies RotaryPositionEmbedding::FrequenciesFor(int64_t length) const {
  Frequencies out;
  const auto base = static_cast<float>(options_.rotary_base);
  switch (options_.scaling.type) {
    case RopeType::kDefault:
      out.inverse = Inverse(Wavelengths(base, rotary_dim_));
      break;
    case RopeType::kLinear:
      out.inverse = Inverse(Wavelengths(base, rotary_dim_));
      for (float& f : out.inverse) f /= static_cast<float>(options_.scaling.factor);
      break;
    case RopeType::kDynamic: {
      const int64_t n = std::max(length, options_.max_position_embeddings);
      out.inverse = Inverse(Wavelengths(DynamicBase(options_, rotary_dim_, n), rotary_dim_));
      break;
    }
    case RopeType::kLlama3:
      out.inverse = Inverse(Wavelengths(base, rotary_dim_));
      ScaleLlama3(options_, &out.inverse);
      break;
    case RopeType::kYarn:
      out.inverse = YarnFrequencies(options_, rotary_dim_);
      out.attention_factor = YarnAttentionFactor(options_.scaling);
      break;
  }
  return out;
}

void RotaryPositionEmbedding::AppendRow(const Frequencies& frequencies, int64_t position,
                                        GrownRows* rows) const {
  for (const float frequency : frequencies.inverse) {
    // The angle is rounded to float32 before the functions see it, as in the reference.
    const double angle = static_cast<float>(position) * frequency;
    rows->cos.push_back(static_cast<float>(std::cos(angle)) * frequencies.attention_factor);
    rows->sin.push_back(static_cast<float>(std::sin(angle)) * frequencies.attention_factor);
  }
}

StatusOr<RotaryPositionEmbedding::Tables> RotaryPositionEmbedding::Upload(
    const GrownRows& rows, int64_t base_length) const {
  const int64_t columns = rotary_dim_ / 2;
  const int64_t capacity = static_cast<int64_t>(rows.cos.size()) / columns;
  const Shape shape = {capacity, columns};
  Tables out{.base_length = base_length, .capacity = capacity, .cos = {}, .sin = {}};
  TE_ASSIGN_OR_RETURN(out.cos, context_->NewTensor(DType::kFloat32, shape));
  TE_ASSIGN_OR_RETURN(out.sin, context_->NewTensor(DType::kFloat32, shape));
  TE_RETURN_IF_ERROR(context_->CopyFromHost(rows.cos.data(), out.cos.view()));
  TE_RETURN_IF_ERROR(context_->CopyFromHost(rows.sin.data(), out.sin.view()));
  return out;
}

StatusOr<RotaryPositionEmbedding::Tables> RotaryPositionEmbedding::Make(int64_t base_length,
                                                                        int64_t capacity) const {
  const Frequencies frequencies = FrequenciesFor(base_length);
  GrownRows rows;
  try {
    rows.cos.reserve(capacity * frequencies.inverse.size());
    rows.sin.reserve(capacity * frequencies.inverse.size());
  } catch (const std::bad_alloc&) {
    return OutOfMemory("rotary position embedding: asked for {} bytes of host memory",
                       2 * capacity * frequencies.inverse.size() * sizeof(float));
  }
  for (int64_t p = 0; p < capacity; ++p) AppendRow(frequencies, p, &rows);
  return Upload(rows, base_length);
}

StatusOr<RotaryTable> RotaryPositionEmbedding::GrownTable(int64_t first, int64_t length) {
  if (first < 0 || first > length) {
    return InvalidArgument("rotary position embedding: first is {}; expected 0 to the length, {}",
                           first, length);
  }
  // Also where the length is none.
  if (length > kMaxLength || BaseLength(length) == 0 || first == length) return Table(length);
  try {
    const int64_t columns = rotary_dim_ / 2;
    int64_t rows = static_cast<int64_t>(grown_rows_.cos.size()) / columns;
    if (grown_rows_.first != first || rows > length)
      grown_rows_ = {.first = first, .cos = {}, .sin = {}};
    rows = static_cast<int64_t>(grown_rows_.cos.size()) / columns;
    const Frequencies at_once = FrequenciesFor(first);
    for (int64_t p = rows; p < length; ++p)
      AppendRow(p < first ? at_once : FrequenciesFor(p + 1), p, &grown_rows_);
  } catch (const std::bad_alloc&) {
    grown_rows_ = {};
    return OutOfMemory("rotary position embedding: no memory for a table of {} positions", length);
  }
  grown_ = {};  // before there is another
  TE_ASSIGN_OR_RETURN(grown_, Upload(grown_rows_, 0));
  return RotaryTable{.cos = grown_.cos, .sin = grown_.sin, .interleaved = options_.interleaved};
}

StatusOr<RotaryTable> RotaryPositionEmbedding::Table(int64_t length) {
  if (length < 0 || length > kMaxLength) {
    return InvalidArgument("rotary position embedding: length is {}; expected 0 to {}", length,
                           kMaxLength);
  }
  const int64_t base_length = BaseLength(length);
  const auto view = [&](const Tables& tables) {
    return RotaryTable{.cos = ConstTensorView(tables.cos).Slice(0, 0, length),
                       .sin = ConstTensorView(tables.sin).Slice(0, 0, length),
                       .interleaved = options_.interleaved};
  };
  if (base_length == 0) {
    if (shared_.empty() || shared_.front().capacity < length) {
      // At least doubled: what is kept of older tables is never more than the newest.
      const int64_t doubled = shared_.empty() ? 0 : 2 * shared_.front().capacity;
      TE_ASSIGN_OR_RETURN(Tables tables, Make(0, std::min(std::max(length, doubled), kMaxLength)));
      shared_.push_front(std::move(tables));
    }
    return view(shared_.front());
  }
  const auto found = std::find_if(own_.begin(), own_.end(),
                                  [&](const Tables& t) { return t.base_length == base_length; });
  if (found != own_.end()) {
    own_.splice(own_.begin(), own_, found);
  } else {
    TE_ASSIGN_OR_RETURN(Tables tables, Make(base_length, length));
    own_.push_front(std::move(tables));
    if (own_.size() > kMaxTables) own_.pop_back();
  }
  return view(own_.front());
}

}  // namespace te
