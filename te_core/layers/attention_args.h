// What attention reads besides hidden states, and whose gradients it gives.
#pragma once

#include <optional>

#include "te_core/tensor.h"
#include "te_kernels/attention/attention_mask.h"

namespace te {

// Cosines and sines of rotary_position_embedding.h: float32 [positions, rotary_dim / 2]. Undefined:
// no rotation.
struct RotaryTable {
  ConstTensorView cos;
  ConstTensorView sin;
  bool interleaved = false;
};

// Keys and values of the tokens seen so far, for one attention layer (inference).
struct KeyValueCache {
  Tensor key;          // [batch, capacity, num_gqa_groups, head_dim], rotated
  Tensor value;        // [batch, capacity, num_gqa_groups, head_dim]
  int64_t length = 0;  // tokens held; attention layers append and advance it
};

// Arguments of forward passes that attention layers alone read. Masks follow Transformer Engine's
// convention: nonzero = masked out.
struct AttentionArgs {
  ConstTensorView key;  // DotProductAttention alone; its query is the pass's input
  ConstTensorView value;
  // DotProductAttention alone: instead of the mask type of its options.
  std::optional<AttentionMaskType> mask_type;
  ConstTensorView padding_mask;       // uint8 [B, Skv]: mask types with "padding"
  bool padding_on_the_right = false;  // AttentionMask::padding_on_the_right
  ConstTensorView arbitrary_mask;     // uint8 [B or 1, n or 1, Sq, Skv]: mask type "arbitrary"
  RotaryTable rotary;
  ConstTensorView positions;  // int32 [B, S], optional; else start_position + s
  int64_t start_position = 0;
  KeyValueCache* cache = nullptr;  // inference only
};

// Gradients of AttentionArgs' tensors: DotProductAttention alone.
struct AttentionGradients {
  TensorView dkey;
  TensorView dvalue;
};

}  // namespace te
