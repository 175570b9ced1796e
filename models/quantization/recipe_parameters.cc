#include "models/quantization/recipe_parameters.h"

#include <algorithm>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace te {
namespace {

// Escaped and cut: names come from files.
std::string Quoted(const std::string& text) { return JsonValue::String(text).ToString(); }

Status Unexpected(const std::string& where, const JsonValue& value, std::string_view expected) {
  return InvalidArgument("{} is {}; expected {}", where, value.ToString(), expected);
}

// A parameter of the reference that is not offered, and why.
struct NotOffered {
  std::string_view key;
  const char* why;
};
constexpr NotOffered kNotOffered[] = {
    {"fp8_dpa", "attention computes in FP8 with delayed scaling alone; expected false"},
    {"fp8_mha", "attention's inputs and outputs stay in BF16 (fp8_dpa); expected false"},
    {"scaling_factor_compute_algo",
     "a function of the caller's would run on the host between two steps; expected null, which is "
     "FP8_MAX / amax / 2^margin"}};

// Members of one object, each read once; what nobody has read is unknown.
class Reader {
 public:
  Reader(const JsonValue& object, const std::string& where) : object_(object), where_(where) {}

  bool Has(std::string_view key) const { return object_.Find(key) != nullptr; }
  void Get(std::string_view key, bool* to) {
    const JsonValue* value = Next(key);
    if (value == nullptr) return;
    if (!value->is_bool()) return Fail(Unexpected(Path(key), *value, "true or false"));
    *to = value->boolean();
  }
  void Get(std::string_view key, float* to) {
    const JsonValue* value = Next(key);
    if (value == nullptr) return;
    if (!value->is_number() || !(value->number() >= 0) ||
        value->number() > std::numeric_limits<float>::max()) {
      return Fail(Unexpected(Path(key), *value, "a number that float32 holds, 0 or more"));
    }
    *to = static_cast<float>(value->number());
  }
  template <typename Int>
  void GetInteger(std::string_view key, Int* to) {
    const JsonValue* value = Next(key);
    if (value == nullptr) return;
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    if (!value->is_integer() || value->integer() < -kMost || value->integer() > kMost)
      return Fail(Unexpected(Path(key), *value, "an integer of 32 bits"));
    *to = static_cast<Int>(value->integer());
  }
  template <typename Enum>
  void GetName(std::string_view key, StatusOr<Enum> (*parse)(std::string_view), Enum* to) {
    const JsonValue* value = Next(key);
    if (value == nullptr) return;
    if (!value->is_string()) return Fail(Unexpected(Path(key), *value, "a name"));
    StatusOr<Enum> parsed = parse(value->string());
    if (!parsed.ok()) return Fail(parsed.status().WithContext(Path(key)));
    *to = *parsed;
  }
  // null, the reference's word for none, or a name.
  void GetOverride(BackwardOverride* to) {
    constexpr std::string_view kKey = "backward_override";
    const JsonValue* value = object_.Find(kKey);
    if (value == nullptr || !value->is_null()) return GetName(kKey, &ParseBackwardOverride, to);
    Next(kKey);
    *to = BackwardOverride::kNone;
  }
  void GetMMParams(std::string_view key, MMParams* to) {
    const JsonValue* value = Next(key);
    if (value == nullptr) return;
    if (!value->is_object()) {
      return Fail(Unexpected(Path(key), *value, "an object of use_split_accumulator"));
    }
    Reader inner(*value, Path(key));
    inner.Get("use_split_accumulator", &to->use_split_accumulator);
    Fail(inner.Finish());
  }
  // A parameter with a single value.
  void GetOnly(std::string_view key, std::string_view only) {
    const JsonValue* value = Next(key);
    if (value == nullptr || (value->is_string() && value->string() == only)) return;
    Fail(Unexpected(Path(key), *value, fmt::format("\"{}\"", only)));
  }

  void Fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  // The first error; an unknown member comes before errors of known ones.
  Status Finish() {
    for (const JsonMember& member : object_.members()) {
      if (std::find(keys_.begin(), keys_.end(), member.key) != keys_.end()) continue;
      const auto* not_offered = std::find_if(
          std::begin(kNotOffered), std::end(kNotOffered),
          [&member](const NotOffered& parameter) { return parameter.key == member.key; });
      if (not_offered == std::end(kNotOffered)) {
        return InvalidArgument("{}: unknown key {}; expected {}", where_, Quoted(member.key),
                               fmt::join(keys_, ", "));
      }
      const JsonValue& value = member.value;
      if (value.is_null() || (value.is_bool() && !value.boolean())) continue;
      return InvalidArgument("{} is {}, which is not offered: {}", Path(member.key),
                             value.ToString(), not_offered->why);
    }
    return status_;
  }

 private:
  const JsonValue* Next(std::string_view key) {
    keys_.push_back(key);
    return object_.Find(key);
  }
  std::string Path(std::string_view key) const { return fmt::format("{}.{}", where_, key); }

  const JsonValue& object_;
  const std::string where_;
  std::vector<std::string_view> keys_;
  Status status_;
};

template <typename Options>
void ReadGemms(Reader& r, Options* o) {
  r.GetMMParams("fp8_gemm_fprop", &o->fp8_gemm_fprop);
  r.GetMMParams("fp8_gemm_dgrad", &o->fp8_gemm_dgrad);
  r.GetMMParams("fp8_gemm_wgrad", &o->fp8_gemm_wgrad);
}

void Read(Reader& r, DelayedScalingRecipe* o) {
  r.GetInteger("margin", &o->margin);
  r.GetName("fp8_format", &ParseFp8Format, &o->fp8_format);
  r.GetInteger("amax_history_len", &o->amax_history_len);
  r.GetName("amax_compute_algo", &ParseAmaxComputeAlgo, &o->amax_compute_algo);
  r.Get("reduce_amax", &o->reduce_amax);
  r.Get("fp8_dpa", &o->fp8_dpa);
}

void Read(Reader& r, Float8CurrentScalingRecipe* o) {
  r.GetName("fp8_format", &ParseFp8Format, &o->fp8_format);
  r.Get("use_power_2_scales", &o->use_power_2_scales);
  r.Get("amax_epsilon", &o->amax_epsilon);
  ReadGemms(r, o);
}

void Read(Reader& r, Float8BlockScalingRecipe* o) {
  r.GetName("fp8_format", &ParseFp8Format, &o->fp8_format);
  if (r.Has("use_f32_scales") && r.Has("use_power_2_scales")) {
    r.Fail(InvalidArgument(
        "use_f32_scales and use_power_2_scales are both given; expected one of them: each is the "
        "contrary of the other"));
  }
  bool use_f32_scales = !o->use_power_2_scales;
  r.Get("use_f32_scales", &use_f32_scales);
  o->use_power_2_scales = !use_f32_scales;
  r.Get("use_power_2_scales", &o->use_power_2_scales);
  r.Get("amax_epsilon", &o->amax_epsilon);
  r.GetInteger("x_block_scaling_dim", &o->x_block_scaling_dim);
  r.GetInteger("w_block_scaling_dim", &o->w_block_scaling_dim);
  r.GetInteger("grad_block_scaling_dim", &o->grad_block_scaling_dim);
  ReadGemms(r, o);
}

void Read(Reader& r, MXFP8BlockScalingRecipe* o) {
  r.GetInteger("margin", &o->margin);
  r.GetName("fp8_format", &ParseFp8Format, &o->fp8_format);
  r.Get("enable_2d_quantization", &o->enable_2d_quantization);
}

void Read(Reader& r, NVFP4BlockScalingRecipe* o) {
  r.Get("disable_rht", &o->disable_rht);
  r.Get("disable_stochastic_rounding", &o->disable_stochastic_rounding);
  r.Get("disable_2d_quantization", &o->disable_2d_quantization);
  r.Get("row_scaled_activation", &o->row_scaled_activation);
  r.GetName("nvfp4_4over6", &ParseNvfp4Scope, &o->nvfp4_4over6);
  r.GetName("nvfp4_4over6_e4m3_use_256", &ParseNvfp4Scope, &o->nvfp4_4over6_e4m3_use_256);
  r.GetName("nvfp4_4over6_err_mode", &ParseFourOverSixErrMode, &o->nvfp4_4over6_err_mode);
  r.GetOnly("fp4_format", "e2m1");
  r.GetOnly("fp8_format", "e4m3");
}

}  // namespace

StatusOr<RecipeOptions> RecipeOptionsOf(std::string_view name) {
  if (name == "delayed") return RecipeOptions(DelayedScalingRecipe());
  if (name == "current") return RecipeOptions(Float8CurrentScalingRecipe());
  if (name == "block") return RecipeOptions(Float8BlockScalingRecipe());
  if (name == "mxfp8") return RecipeOptions(MXFP8BlockScalingRecipe());
  if (name == "nvfp4") return RecipeOptions(NVFP4BlockScalingRecipe());
  return InvalidArgument("recipe is {}; expected delayed, current, block, mxfp8 or nvfp4",
                         Quoted(std::string(name)));
}

Status ReadRecipeParameters(const JsonValue& object, const std::string& where,
                            RecipeOptions* options) {
  if (!object.is_object()) return Unexpected(where, object, "an object of the recipe's parameters");
  Reader reader(object, where);
  std::visit(
      [&reader](auto& o) {
        Read(reader, &o);
        reader.GetOverride(&o.backward_override);
      },
      *options);
  return reader.Finish();
}

StatusOr<std::shared_ptr<const Recipe>> MakeRecipe(const RecipeOptions& options) {
  TE_ASSIGN_OR_RETURN(std::shared_ptr<const Recipe> recipe,
                      std::visit([](const auto& o) { return MakeRecipe(o); }, options));
  return recipe;
}

}  // namespace te
