// Cosines and sines of rotary position embedding (Su et al. 2021, "RoFormer") for te_kernels/rope,
// with the frequency scalings of Hugging Face's checkpoints (transformers, modeling_rope_utils).
//
//   angle[p, r] = p * f[r],  cos[p, r] = a cos(angle[p, r]),  sin[p, r] = a sin(angle[p, r]),  r <
//   rotary_dim / 2 default   f = base^(-2r / rotary_dim), a = 1 linear    f / factor dynamic   "NTK
//   aware": base grows with the sequence: base (factor n / max_position_embeddings - (factor -
//   1))^(d / (d - 2)),
//             n = max(length, max_position_embeddings), d = rotary_dim
//   llama3    low frequencies / factor, high ones kept, between them interpolated (Llama 3.1)
//   yarn      Peng et al. 2023 (arXiv 2309.00071): a ramp over r between f / factor and f; a = the
//   attention factor
// Frequencies and angles are float32, rounded where the reference rounds them; a frequency differs
// from the reference's by at most a few units in the last place (the reference's own float32 pow is
// not correctly rounded), and a cosine or sine therefore by at most 2^-21 (1 + |angle|).
#pragma once

#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "te_core/layers/layer.h"

namespace te {

enum class RopeType : int32_t { kDefault = 0, kLinear = 1, kDynamic = 2, kLlama3 = 3, kYarn = 4 };

// Fields that the type does not use are ignored, as in config.json.
struct RopeScaling {
  RopeType type = RopeType::kDefault;
  double factor = 1;
  double low_freq_factor = 1;  // llama3
  double high_freq_factor = 4;
  int64_t original_max_position_embeddings = 0;  // llama3, yarn; 0: max_position_embeddings
  double beta_fast = 32;                         // yarn
  double beta_slow = 1;
  std::optional<double> attention_factor;  // absent: from factor, mscale and mscale_all_dim
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  bool truncate = true;
};

struct RotaryOptions {
  int64_t dim = 0;  // of a head
  double rotary_percent =
      1;  // of dim that is rotated: rotary_dim = floor(dim * rotary_percent), even
  double rotary_base = 10000;
  bool interleaved = false;
  int64_t max_position_embeddings =
      0;  // needed by dynamic, and by llama3 and yarn without their own
  RopeScaling scaling;
};

// Thread-compatible. The context must outlive it.
class RotaryPositionEmbedding {
 public:
  // kInvalidArgument names the option, its value and what was expected.
  static StatusOr<std::unique_ptr<RotaryPositionEmbedding>> Create(Context* context,
                                                                   const RotaryOptions& options);

  // Device tables, float32 [length, rotary_dim / 2], made when first asked for; a shorter table is
  // a view of a longer one, so that asking for the longest length first fixes the addresses. They
  // stay valid as long as this object, but for `dynamic` beyond max_position_embeddings, where each
  // length has a table of its own: there until kMaxTables other lengths were asked for. Lengths up
  // to 2^24 (beyond, float32 positions are not exact).
  StatusOr<RotaryTable> Table(int64_t length);

  // The table of a sequence whose first `first` tokens came at once and the others one at a time,
  // as in generation: row p is that of Table(max(first, p + 1)). With `dynamic` beyond
  // max_position_embeddings a key-value cache keeps keys as they were rotated when their token was
  // the last one, and this is how a pass over the whole sequence gets the same keys; otherwise it
  // is Table(length). Valid until the next call.
  StatusOr<RotaryTable> GrownTable(int64_t first, int64_t length);

  static constexpr int64_t kMaxLength = int64_t{1} << 24;
  static constexpr size_t kMaxTables = 16;

  // Frequencies f and attention factor a for sequences of `length`.
  struct Frequencies {
    std::vector<float> inverse;
    float attention_factor = 1;
  };
  Frequencies FrequenciesFor(int64_t length) const;

  const RotaryOptions& options() const { return options_; }
  int64_t rotary_dim() const { return rotary_dim_; }

 private:
  struct Tables {
    int64_t base_length;  // what the frequencies depend on; 0 where they do not
    int64_t capacity;     // rows
    Tensor cos;
    Tensor sin;
  };

  RotaryPositionEmbedding(Context* context, const RotaryOptions& options, int64_t rotary_dim)
      : context_(context), options_(options), rotary_dim_(rotary_dim) {}
  // Rows of one table, in host memory, each appended once.
  struct GrownRows {
    int64_t first = 0;
    std::vector<float> cos;
    std::vector<float> sin;
  };
  int64_t BaseLength(int64_t length) const;
  void AppendRow(const Frequencies& frequencies, int64_t position, GrownRows* rows) const;
  StatusOr<Tables> Upload(const GrownRows& rows, int64_t base_length) const;
  StatusOr<Tables> Make(int64_t base_length, int64_t capacity) const;

  Context* context_;
  RotaryOptions options_;
  int64_t rotary_dim_;
  std::list<Tables>
      shared_;  // grown: the newest first, older ones kept for those who still hold views
  std::list<Tables> own_;  // of single lengths (dynamic): the latest used first
  GrownRows grown_rows_;
  Tables grown_ = {};
};

}  // namespace te
