#include "te_kernels/base/view.h"

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace te {

std::string Shape::ToString() const { return fmt::format("[{}]", fmt::join(dims(), ", ")); }

template <typename Void>
std::string BasicView<Void>::ToString() const {
  if (!defined()) return "nothing";
  std::string text = fmt::format("{} {}", Name(dtype_), shape_.ToString());
  if (!IsDense()) {
    text +=
        fmt::format(" strides [{}]", fmt::join(strides_.begin(), strides_.begin() + rank(), ", "));
  }
  return text;
}

template class BasicView<void>;
template class BasicView<const void>;

}  // namespace te
