// A restricted unpickler: reads what torch.save writes for a dictionary of tensors and builds
// tensors and containers, nothing else. Every global that is not on its short list is refused by
// name; nothing is ever called. Opcodes: Python's Lib/pickletools.py; what the globals mean:
// torch/_utils.py and torch/serialization.py.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "models/checkpoint/tensor_file.h"

namespace te {

// Bounds that no real checkpoint meets: about 80 bytes of memory an object, 25 objects a tensor.
inline constexpr size_t kMaxPickleObjects = 4'000'000;
inline constexpr size_t kMaxPickleBytes = size_t{64} << 20;
inline constexpr size_t kMaxTensorRank = 64;

struct PickleObject {
  enum class Kind : uint8_t {
    kNone,
    kBool,
    kInteger,
    kDouble,
    kString,
    kBytes,
    kTuple,
    kList,
    kDict,
    kSet,
    kGlobal,
    kStorage,
    kTensor,
  };
  Kind kind = Kind::kNone;
  StoredType type = StoredType::kU8;  // storage, tensor
  bool untyped = false;               // storage: counted in bytes
  // The value; a storage's number of elements; a tensor's offset into its storage, in elements.
  int64_t integer = 0;
  double number = 0;
  std::string text;  // string, bytes; a global's "module.name"; a storage's key
  // Tuple, list, set: the elements. Dict: key, value, key, value, ... Tensor: its storage, then
  // shape (a tuple), strides (a tuple).
  std::vector<const PickleObject*> items;

  const char* kind_name() const;
};

// Owns all objects; they may form cycles.
class Pickle {
 public:
  // kCorruptData for a broken pickle, kUnsupported for one that wants more than tensors and
  // containers, or more than `max_objects` objects (or memo entries, or references on the stack).
  // Errors say the byte.
  static StatusOr<Pickle> Parse(std::string_view bytes, size_t max_objects = kMaxPickleObjects);
  const PickleObject& root() const { return *root_; }

 private:
  friend class Unpickler;
  std::deque<PickleObject> objects_;
  const PickleObject* root_ = nullptr;
};

}  // namespace te
