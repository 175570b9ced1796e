// Texts of tuned choices: what is taken apart is put together to the same text, and adding it to
// itself changes nothing. Any two of its lines are compared as headers.
#include "models/llama/choices_text.h"
#include "te_kernels/cuda/choices_header.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

TE_FUZZ_TARGET(input) {
  const fuzz::MemoryBound bound(input.size(), {.factor = 256});
  const size_t first = input.find('\n');
  const std::string_view header = input.substr(0, first);
  const std::string_view other =
      first == std::string_view::npos ? "" : input.substr(first + 1, input.find('\n', first + 1));
  for (const PinAs as : {PinAs::kOwn, PinAs::kKnown, PinAs::kShipped}) {
    TE_FUZZ_CHECK(cuda::ChoicesHold(header, header, 132, as), "{}", header);
    TE_FUZZ_CHECK(
        cuda::ChoicesHold(header, other, 132, as) == cuda::ChoicesHold(other, header, 132, as),
        "{} holds for {}, but not the other way", header, other);
  }
  ChoicesText text;
  if (!text.Parse(input)) {
    TE_FUZZ_CHECK(text.count() == 0 && text.ToString().empty(), "changed by what is refused");
    return;
  }
  ChoicesText again;
  TE_FUZZ_CHECK(again.Parse(text.ToString()), "not read: {}", text.ToString());
  TE_FUZZ_CHECK(again.ToString() == text.ToString(), "{} became {}", text.ToString(),
                again.ToString());
  again.Add(text);
  TE_FUZZ_CHECK(again.ToString() == text.ToString(), "{} became {}", text.ToString(),
                again.ToString());
}

}  // namespace
}  // namespace te
