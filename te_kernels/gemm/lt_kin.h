// Which matrix products are alike enough that what is best for one is a good guess for the other.
#pragma once

#include <optional>
#include <string_view>

namespace te {

// Which of a product's dimensions is as long as the step has tokens: n of what goes forward and of
// gradients of activations, k of gradients of weights. (Of m, n and k in cuBLASLt's order.)
enum class LtTokens { kN = 1, kK = 2 };

// Of two problems by their keys (LtProblem::ToString): how far apart they are where that dimension
// alone differs, as batches of other lengths make it, and whether the product is added to what is
// there. 0: in that alone; 1: by a factor of two, beyond which they are not alike.
std::optional<double> LtDistance(std::string_view key, std::string_view other, LtTokens tokens);

}  // namespace te
