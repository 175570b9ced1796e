// What flows between layers, forward and backward alike: a dense tensor, or FP8 codes of it.
#pragma once

#include <concepts>

#include "te_kernels/base/quant_spec.h"
#include "te_kernels/base/view.h"

namespace te {

// Which token a row of codes belongs to: row b * sequence + s, or s * batch + b with
// sequence_first.
struct TokenLayout {
  int64_t batch = 0;
  int64_t sequence = 0;
  bool sequence_first = false;

  int64_t tokens() const { return batch * sequence; }
};

// Plain data: views of memory that belongs to somebody else. A tensor converts to a dense one.
struct Activation {
  ConstTensorView dense;  // undefined: the codes are all there is
  // Of the dense tensor as a matrix, a row a token. Format kNone: there are none. Beside a dense
  // tensor they hold the same values, rounded.
  QuantSpec codes;

  Activation() = default;
  template <typename View>
  requires std::convertible_to<const View&, ConstTensorView> Activation(const View& view)
      : dense(view) {}

  bool in_codes() const { return codes.format != QuantFormat::kNone; }
};

}  // namespace te
