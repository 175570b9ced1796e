// Pickles, without the zip archive around them.
#include <set>

#include "models/checkpoint/pickle.h"
#include "tests/fuzz/fuzzing.h"

namespace te {
namespace {

// Every object that the root reaches is whole. The graph may have cycles and be deep: no recursion.
void CheckObjects(const PickleObject& root) {
  std::set<const PickleObject*> seen = {&root};
  std::vector<const PickleObject*> left = {&root};
  while (!left.empty()) {
    const PickleObject& object = *left.back();
    left.pop_back();
    TE_FUZZ_CHECK(object.kind_name() != std::string_view("unknown"), "an object of no kind");
    if (object.kind == PickleObject::Kind::kDict)
      TE_FUZZ_CHECK(object.items.size() % 2 == 0, "a key without a value");
    if (object.kind == PickleObject::Kind::kTensor) {
      TE_FUZZ_CHECK(object.items.size() == 3, "a tensor of {} parts", object.items.size());
      TE_FUZZ_CHECK(object.items[0]->kind == PickleObject::Kind::kStorage, "no storage");
      TE_FUZZ_CHECK(object.items[1]->items.size() == object.items[2]->items.size(), "no strides");
    }
    for (const PickleObject* item : object.items) {
      TE_FUZZ_CHECK(item != nullptr, "an item that is nothing");
      if (seen.insert(item).second) left.push_back(item);
    }
  }
}

TE_FUZZ_TARGET(input) {
  const StatusOr<Pickle> pickle = [&] {
    const fuzz::MemoryBound bound(input.size(), {.factor = 160});
    return Pickle::Parse(input);
  }();
  if (!pickle.ok()) return fuzz::CheckRefusal(pickle.status());
  CheckObjects(pickle->root());
}

}  // namespace
}  // namespace te
