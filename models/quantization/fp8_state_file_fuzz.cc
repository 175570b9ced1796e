// te_fp8_state.safetensors: what is read is written and read back as the same, bit for bit.
#include <cmath>
#include <filesystem>

#include "models/quantization/fp8_state_file.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

void CheckSame(const Fp8State& a, const Fp8State& b) {
  TE_FUZZ_CHECK(a.recipe == b.recipe && a.step == b.step, "another recipe or step");
  TE_FUZZ_CHECK(a.slots.size() == b.slots.size(), "{} slots became {}", a.slots.size(),
                b.slots.size());
  for (size_t i = 0; i < a.slots.size(); ++i) {
    const auto &x = a.slots[i], &y = b.slots[i];
    TE_FUZZ_CHECK(x.name == y.name && x.format == y.format && x.scale == y.scale &&
                      x.amax_history == y.amax_history,
                  "slot {} became another", x.name);
  }
}

TE_FUZZ_TARGET(input) {
  static const fuzz::MemoryFolder folder;
  static fuzz::MemoryFile source;
  source.Set(input);
  const fuzz::MemoryBound bound(input.size(), {.base = size_t{1} << 20, .factor = 256});
  StatusOr<Fp8State> state = ReadFp8State(source.path());
  if (!state.ok()) return fuzz::CheckRefusal(state.status());
  for (const auto& slot : state->slots) {
    TE_FUZZ_CHECK(slot.scale > 0 && std::isfinite(slot.scale), "scale {}", slot.scale);
    TE_FUZZ_CHECK(!slot.amax_history.empty(), "no history");
  }
  TE_FUZZ_CHECK(CountModules(*state) <= static_cast<int64_t>(state->slots.size()), "modules");
  const std::string path = folder.path() + "/written";
  std::filesystem::remove(path);
  const Status written = WriteFp8State(path, *state);
  TE_FUZZ_CHECK(written.ok(), "{}", written.message());
  const StatusOr<Fp8State> again = ReadFp8State(path);
  TE_FUZZ_CHECK(again.ok(), "{}", again.status().message());
  CheckSame(*state, *again);
}

}  // namespace
}  // namespace te
