// Which (query, key) pairs attend: Transformer Engine's mask types, and a sliding window on top.
// Convention of Transformer Engine: true (nonzero) = masked out.
#pragma once

#include <string_view>

#include "te_kernels/base/status.h"
#include "te_kernels/base/view.h"

namespace te {

enum class AttentionMaskType : int32_t {
  kNoMask = 0,
  kPadding = 1,
  kCausal = 2,
  kPaddingCausal = 3,
  kCausalBottomRight = 4,
  kPaddingCausalBottomRight = 5,
  kArbitrary = 6,
};

const char* Name(AttentionMaskType type);
// Whether the type reads AttentionMask::padding.
bool UsesPadding(AttentionMaskType type);
// Whether query i sees no key behind its diagonal, and where that ends: at the last key.
bool IsCausal(AttentionMaskType type);
bool IsBottomRight(AttentionMaskType type);
// "causal" and so on (Transformer Engine's spelling, "padding,causal" too); kInvalidArgument lists
// the names.
StatusOr<AttentionMaskType> ParseAttentionMaskType(std::string_view name);

struct AttentionMask {
  AttentionMaskType type = AttentionMaskType::kCausal;
  // Padding types: uint8 [B, Skv], nonzero = this key is padding. A query row of which every key is
  // masked has output 0 and gradient 0.
  ConstTensorView padding;
  // Padding types: the caller knows that each row of `padding` masks nothing but its end, and not
  // all of it. Backends may then use each sequence's length alone.
  bool padding_on_the_right = false;
  // kArbitrary: uint8 [B or 1, n or 1, Sq, Skv], nonzero = masked out (a dimension of size 1
  // broadcasts).
  ConstTensorView arbitrary;
  // Key j is visible to query i only if i' - window_left <= j <= i' + window_right, where i' = i,
  // or i + Skv - Sq for the bottom-right types; -1 is infinite. Causal types: window_right is 0.
  int64_t window_left = -1;
  int64_t window_right = -1;
};

// Causal, its bottom-right diagonal, and the window, as one range of keys: query i sees the keys
// [begin, end) before padding and arbitrary masks are applied.
struct KeyRange {
  int64_t begin;
  int64_t end;
};
KeyRange VisibleKeys(const AttentionMask& mask, int64_t query, int64_t num_queries,
                     int64_t num_keys);

// What VisibleKeys takes from a mask, as numbers: one arithmetic for host and device.
struct KeyWindow {
  int64_t shift;        // query i's diagonal is key i + shift
  int64_t left, right;  // keys seen before and after the diagonal; -1 is infinite

  // Both ends grow with the query.
  constexpr KeyRange Visible(int64_t query, int64_t num_keys) const {
    const int64_t diagonal = query + shift;
    const int64_t begin = left < 0 || diagonal < left ? 0 : diagonal - left;
    int64_t end = right < 0 || diagonal + right >= num_keys ? num_keys : diagonal + right + 1;
    end = end < 0 ? 0 : end;
    return {begin < end ? begin : end, end};
  }
};
KeyWindow WindowOf(const AttentionMask& mask, int64_t num_queries, int64_t num_keys);

// One query's row of a validated mask, in host memory: for loops of the CPU backend.
class MaskedRow {
 public:
  MaskedRow(const AttentionMask& mask, int64_t batch, int64_t head, int64_t query,
            int64_t num_queries, int64_t num_keys);

  // Outside [begin, end) every key is masked.
  int64_t begin() const { return range_.begin; }
  int64_t end() const { return range_.end; }
  // Whether keys inside the range may be masked.
  bool has_holes() const { return masked_ != nullptr; }
  bool Masked(int64_t key) const { return masked_ != nullptr && masked_[key * stride_] != 0; }

 private:
  KeyRange range_;
  const uint8_t* masked_ = nullptr;
  int64_t stride_ = 1;
};

// Checks that the tensors that `type` needs are there, and their shapes and dtypes.
Status ValidateAttentionMask(const AttentionMask& mask, int64_t batch, int64_t heads,
                             int64_t num_queries, int64_t num_keys);

}  // namespace te
