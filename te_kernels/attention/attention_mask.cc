#include "te_kernels/attention/attention_mask.h"

#include <algorithm>
#include <string>

namespace te {
namespace {

constexpr AttentionMaskType kTypes[] = {
    AttentionMaskType::kNoMask,
    AttentionMaskType::kPadding,
    AttentionMaskType::kCausal,
    AttentionMaskType::kPaddingCausal,
    AttentionMaskType::kCausalBottomRight,
    AttentionMaskType::kPaddingCausalBottomRight,
    AttentionMaskType::kArbitrary,
};

}  // namespace

bool IsCausal(AttentionMaskType type) {
  return type == AttentionMaskType::kCausal || type == AttentionMaskType::kPaddingCausal ||
         type == AttentionMaskType::kCausalBottomRight ||
         type == AttentionMaskType::kPaddingCausalBottomRight;
}

bool IsBottomRight(AttentionMaskType type) {
  return type == AttentionMaskType::kCausalBottomRight ||
         type == AttentionMaskType::kPaddingCausalBottomRight;
}

bool UsesPadding(AttentionMaskType type) {
  return type == AttentionMaskType::kPadding || type == AttentionMaskType::kPaddingCausal ||
         type == AttentionMaskType::kPaddingCausalBottomRight;
}

const char* Name(AttentionMaskType type) {
  switch (type) {
    case AttentionMaskType::kNoMask:
      return "no_mask";
    case AttentionMaskType::kPadding:
      return "padding";
    case AttentionMaskType::kCausal:
      return "causal";
    case AttentionMaskType::kPaddingCausal:
      return "padding_causal";
    case AttentionMaskType::kCausalBottomRight:
      return "causal_bottom_right";
    case AttentionMaskType::kPaddingCausalBottomRight:
      return "padding_causal_bottom_right";
    case AttentionMaskType::kArbitrary:
      return "arbitrary";
  }
  return "unknown";
}

StatusOr<AttentionMaskType> ParseAttentionMaskType(std::string_view name) {
  for (AttentionMaskType type : kTypes) {
    if (name == Name(type)) return type;
  }
  // Transformer Engine takes these spellings, too.
  if (name == "padding,causal" || name == "causal,padding")
    return AttentionMaskType::kPaddingCausal;
  return InvalidArgument(
      "attention mask type '{}'; expected no_mask, padding, causal, padding_causal, "
      "causal_bottom_right, padding_causal_bottom_right or "
      "arbitrary",
      name);
}

KeyWindow WindowOf(const AttentionMask& mask, int64_t num_queries, int64_t num_keys) {
  return {.shift = IsBottomRight(mask.type) ? num_keys - num_queries : 0,
          .left = mask.window_left,
          .right = IsCausal(mask.type) ? 0 : mask.window_right};
}

KeyRange VisibleKeys(const AttentionMask& mask, int64_t query, int64_t num_queries,
                     int64_t num_keys) {
  return WindowOf(mask, num_queries, num_keys).Visible(query, num_keys);
}

Status ValidateAttentionMask(const AttentionMask& mask, int64_t batch, int64_t heads,
                             int64_t num_queries, int64_t num_keys) {
  if (mask.window_left < -1 || mask.window_right < -1) {
    return InvalidArgument("attention: window_size is ({}, {}); expected -1 (infinite) or more",
                           mask.window_left, mask.window_right);
  }
  if (UsesPadding(mask.type)) {
    const Shape expected = {batch, num_keys};
    if (!mask.padding.defined() || mask.padding.dtype() != DType::kUInt8 ||
        mask.padding.shape() != expected) {
      return InvalidArgument(
          "attention: mask type {} needs a padding mask; it is {}, expected uint8 {}",
          Name(mask.type), mask.padding.ToString(), expected.ToString());
    }
  }
  if (mask.type == AttentionMaskType::kArbitrary) {
    const ConstTensorView& m = mask.arbitrary;
    const bool fits = m.defined() && m.dtype() == DType::kUInt8 && m.rank() == 4 &&
                      (m.dim(0) == batch || m.dim(0) == 1) &&
                      (m.dim(1) == heads || m.dim(1) == 1) && m.dim(2) == num_queries &&
                      m.dim(3) == num_keys;
    if (!fits) {
      return InvalidArgument(
          "attention: mask type arbitrary needs a mask; it is {}, expected uint8 [{} or 1, {} or "
          "1, {}, {}]",
          m.ToString(), batch, heads, num_queries, num_keys);
    }
  }
  return OkStatus();
}

MaskedRow::MaskedRow(const AttentionMask& mask, int64_t batch, int64_t head, int64_t query,
                     int64_t num_queries, int64_t num_keys)
    : range_(VisibleKeys(mask, query, num_queries, num_keys)) {
  if (UsesPadding(mask.type)) {
    masked_ = mask.padding.as<uint8_t>() + batch * mask.padding.stride(0);
    stride_ = mask.padding.stride(1);
  } else if (mask.type == AttentionMaskType::kArbitrary) {
    const ConstTensorView& m = mask.arbitrary;
    masked_ = m.as<uint8_t>() + (m.dim(0) == 1 ? 0 : batch) * m.stride(0) +
              (m.dim(1) == 1 ? 0 : head) * m.stride(1) + query * m.stride(2);
    stride_ = m.stride(3);
  }
}

}  // namespace te
