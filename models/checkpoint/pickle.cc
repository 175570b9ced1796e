#include "models/checkpoint/pickle.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <unordered_map>

#include "models/json/json.h"

namespace te {
namespace {

struct StorageName {
  const char* name;
  StoredType type = StoredType::kU8;
};

// torch.XStorage. Quantized and complex128 ones have no type here and are refused by name.
constexpr StorageName kStorages[] = {
    {"DoubleStorage", StoredType::kF64},       {"FloatStorage", StoredType::kF32},
    {"HalfStorage", StoredType::kF16},         {"BFloat16Storage", StoredType::kBF16},
    {"LongStorage", StoredType::kI64},         {"IntStorage", StoredType::kI32},
    {"ShortStorage", StoredType::kI16},        {"CharStorage", StoredType::kI8},
    {"ByteStorage", StoredType::kU8},          {"BoolStorage", StoredType::kBool},
    {"ComplexFloatStorage", StoredType::kC64},
};

// torch.dtype objects, third to last argument of _rebuild_tensor_v3.
constexpr StorageName kDTypes[] = {
    {"float64", StoredType::kF64},        {"float32", StoredType::kF32},
    {"float16", StoredType::kF16},        {"bfloat16", StoredType::kBF16},
    {"int64", StoredType::kI64},          {"int32", StoredType::kI32},
    {"int16", StoredType::kI16},          {"int8", StoredType::kI8},
    {"uint8", StoredType::kU8},           {"bool", StoredType::kBool},
    {"uint16", StoredType::kU16},         {"uint32", StoredType::kU32},
    {"uint64", StoredType::kU64},         {"float8_e4m3fn", StoredType::kF8E4M3},
    {"float8_e5m2", StoredType::kF8E5M2}, {"float8_e8m0fnu", StoredType::kF8E8M0},
    {"complex64", StoredType::kC64},
};

enum class GlobalKind {
  kOrderedDict,
  kSize,
  kRebuildTensor,
  kRebuildTensorV3,
  kRebuildParameter,
  kStorage,
  kDType
};

// What a global may be; false: refused.
bool Classify(std::string_view name, GlobalKind* kind, StoredType* type, bool* untyped) {
  *untyped = false;
  if (name == "collections.OrderedDict") return *kind = GlobalKind::kOrderedDict, true;
  if (name == "torch.Size") return *kind = GlobalKind::kSize, true;
  if (name == "torch._utils._rebuild_tensor" || name == "torch._utils._rebuild_tensor_v2") {
    return *kind = GlobalKind::kRebuildTensor, true;
  }
  if (name == "torch._utils._rebuild_tensor_v3") return *kind = GlobalKind::kRebuildTensorV3, true;
  if (name == "torch._utils._rebuild_parameter" ||
      name == "torch._utils._rebuild_parameter_with_state") {
    return *kind = GlobalKind::kRebuildParameter, true;
  }
  if (name == "torch.storage.UntypedStorage" || name == "torch.UntypedStorage" ||
      name == "torch.storage._UntypedStorage") {
    *untyped = true;
    *type = StoredType::kU8;
    return *kind = GlobalKind::kStorage, true;
  }
  std::string_view rest = name;
  if (!rest.starts_with("torch.")) return false;
  rest.remove_prefix(6);
  for (const StorageName& row : kDTypes) {
    if (rest == row.name) return *kind = GlobalKind::kDType, *type = row.type, true;
  }
  if (rest.starts_with("storage.")) rest.remove_prefix(8);
  for (const StorageName& row : kStorages) {
    if (rest == row.name) return *kind = GlobalKind::kStorage, *type = row.type, true;
  }
  return false;
}

}  // namespace

const char* PickleObject::kind_name() const {
  switch (kind) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "a bool";
    case Kind::kInteger:
      return "an int";
    case Kind::kDouble:
      return "a float";
    case Kind::kString:
      return "a str";
    case Kind::kBytes:
      return "bytes";
    case Kind::kTuple:
      return "a tuple";
    case Kind::kList:
      return "a list";
    case Kind::kDict:
      return "a dict";
    case Kind::kSet:
      return "a set";
    case Kind::kGlobal:
      return "a global";
    case Kind::kStorage:
      return "a storage";
    case Kind::kTensor:
      return "a tensor";
  }
  return "unknown";
}

// The stack machine. Opcodes are handled in Step; each helper returns a Status whose message the
// caller prefixes with the byte.
class Unpickler {
 public:
  Unpickler(std::string_view bytes, size_t max_objects, Pickle* out)
      : bytes_(bytes), max_objects_(max_objects), out_(out) {}

  Status Run() {
    while (true) {
      const size_t at = at_;
      bool stop = false;
      Status status = Step(&stop);
      if (status.ok() && (stack_.size() > max_objects_ || marks_.size() > max_objects_ ||
                          memo_.size() > max_objects_)) {
        status = Unsupported("more than {} references on the stack or in the memo", max_objects_);
      }
      if (!status.ok()) return status.WithContext(fmt::format("byte {} of the pickle", at));
      if (stop) return OkStatus();
    }
  }

 private:
  using Object = PickleObject;
  using Kind = PickleObject::Kind;

  // --- bytes ---
  Status Take(size_t count, std::string_view* out) {
    if (count > bytes_.size() - at_)
      return CorruptData("the pickle ends in the middle of an opcode");
    *out = bytes_.substr(at_, count);
    at_ += count;
    return OkStatus();
  }
  Status TakeUnsigned(int width, uint64_t* out) {
    std::string_view raw;
    TE_RETURN_IF_ERROR(Take(static_cast<size_t>(width), &raw));
    *out = 0;
    for (int i = width - 1; i >= 0; --i)
      *out = *out << 8 | static_cast<unsigned char>(raw[static_cast<size_t>(i)]);
    return OkStatus();
  }
  Status TakeCounted(int width, std::string_view* out) {
    uint64_t count = 0;
    TE_RETURN_IF_ERROR(TakeUnsigned(width, &count));
    if (count > bytes_.size())
      return CorruptData("a length of {} bytes in a pickle of {}", count, bytes_.size());
    return Take(static_cast<size_t>(count), out);
  }
  Status TakeLine(std::string_view* out) {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos)
      return CorruptData("the pickle ends in the middle of an opcode");
    *out = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return OkStatus();
  }

  // --- stack ---
  size_t Floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Status Pop(Object** out) {
    if (stack_.size() <= Floor()) return CorruptData("the stack is empty");
    *out = stack_.back();
    stack_.pop_back();
    return OkStatus();
  }
  Status Top(Object** out) {
    if (stack_.size() <= Floor()) return CorruptData("the stack is empty");
    *out = stack_.back();
    return OkStatus();
  }
  Status PopMark(std::vector<const Object*>* items) {
    if (marks_.empty()) return CorruptData("no mark on the stack");
    const size_t mark = marks_.back();
    marks_.pop_back();
    items->assign(stack_.begin() + static_cast<ptrdiff_t>(mark), stack_.end());
    stack_.resize(mark);
    return OkStatus();
  }
  StatusOr<Object*> New(Kind kind) {
    if (out_->objects_.size() >= max_objects_)
      return Unsupported("more than {} objects in the pickle", max_objects_);
    Object& object = out_->objects_.emplace_back();
    object.kind = kind;
    return &object;
  }
  Status Push(Kind kind, Object** out = nullptr) {
    TE_ASSIGN_OR_RETURN(Object * object, New(kind));
    stack_.push_back(object);
    if (out != nullptr) *out = object;
    return OkStatus();
  }
  Status PushInteger(int64_t value, Kind kind = Kind::kInteger) {
    Object* object = nullptr;
    TE_RETURN_IF_ERROR(Push(kind, &object));
    object->integer = value;
    return OkStatus();
  }
  Status PushText(std::string_view text, Kind kind) {
    if (kind == Kind::kString && !IsValidUtf8(text))
      return CorruptData("a string that is not valid UTF-8");
    Object* object = nullptr;
    TE_RETURN_IF_ERROR(Push(kind, &object));
    object->text = text;
    return OkStatus();
  }
  Status PushLong(std::string_view raw) {
    if (raw.size() > 8)
      return Unsupported("an integer of {} bytes; at most 8 are taken", raw.size());
    uint64_t value = 0;
    for (size_t i = raw.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(raw[i]);
    if (!raw.empty() && raw.size() < 8 && (raw.back() & 0x80) != 0)
      value |= ~uint64_t{0} << (8 * raw.size());
    return PushInteger(static_cast<int64_t>(value));
  }
  Status PushTuple(size_t count) {
    if (stack_.size() - Floor() < count) return CorruptData("the stack is empty");
    std::vector<const Object*> items(stack_.end() - static_cast<ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    Object* object = nullptr;
    TE_RETURN_IF_ERROR(Push(Kind::kTuple, &object));
    object->items = std::move(items);
    return OkStatus();
  }
  Status PushMarked(Kind kind) {
    std::vector<const Object*> items;
    TE_RETURN_IF_ERROR(PopMark(&items));
    if (kind == Kind::kDict && items.size() % 2 != 0)
      return CorruptData("a dict with a key and no value");
    Object* object = nullptr;
    TE_RETURN_IF_ERROR(Push(kind, &object));
    object->items = std::move(items);
    return OkStatus();
  }
  // Adds to the container on top of the stack.
  Status Extend(Kind kind, const std::vector<const Object*>& items) {
    Object* container = nullptr;
    TE_RETURN_IF_ERROR(Top(&container));
    if (container->kind != kind)
      return CorruptData("items are added to {}", container->kind_name());
    if (kind == Kind::kDict && items.size() % 2 != 0)
      return CorruptData("a dict with a key and no value");
    container->items.insert(container->items.end(), items.begin(), items.end());
    return OkStatus();
  }
  Status ExtendMarked(Kind kind) {
    std::vector<const Object*> items;
    TE_RETURN_IF_ERROR(PopMark(&items));
    return Extend(kind, items);
  }
  Status Put(uint64_t key) {
    Object* object = nullptr;
    TE_RETURN_IF_ERROR(Top(&object));
    memo_[key] = object;
    return OkStatus();
  }
  Status Get(uint64_t key) {
    const auto it = memo_.find(key);
    if (it == memo_.end()) return CorruptData("memo {} was never set", key);
    stack_.push_back(it->second);
    return OkStatus();
  }

  // --- globals ---
  Status Refuse(const std::string& name) {
    return Unsupported(
        "it wants the global {}, which is no tensor and no container: refused (a pickle can run "
        "any code)",
        name);
  }
  Status PushGlobal(std::string_view module, std::string_view name) {
    const std::string full = std::string(module) + "." + std::string(name);
    GlobalKind kind = GlobalKind::kOrderedDict;
    StoredType type = StoredType::kU8;
    bool untyped = false;
    if (!Classify(full, &kind, &type, &untyped)) return Refuse(full);
    return PushText(full, Kind::kGlobal);
  }
  Status Step(bool* stop);
  Status Reduce();
  Status Build();
  Status PersistentId();
  Status RebuildTensor(const std::string& name, GlobalKind kind, const Object& args);

  std::string_view bytes_;
  size_t max_objects_;
  Pickle* out_;
  size_t at_ = 0;
  std::vector<Object*> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, Object*> memo_;
};

Status Unpickler::Step(bool* stop) {
  uint64_t op = 0, n = 0;
  std::string_view raw, raw2;
  Object* object = nullptr;
  TE_RETURN_IF_ERROR(TakeUnsigned(1, &op));
  switch (op) {
    case 0x80:  // PROTO
      TE_RETURN_IF_ERROR(TakeUnsigned(1, &n));
      return n >= 2 && n <= 5 ? OkStatus() : Unsupported("pickle protocol {}; 2 to 5 are read", n);
    case 0x95:  // FRAME: a hint for buffered readers
      TE_RETURN_IF_ERROR(TakeUnsigned(8, &n));
      return n <= bytes_.size() - at_
                 ? OkStatus()
                 : CorruptData("a frame of {} bytes, {} are left", n, bytes_.size() - at_);
    case '.':  // STOP
      TE_RETURN_IF_ERROR(Pop(&object));
      if (!stack_.empty() || !marks_.empty())
        return CorruptData("objects are left on the stack at the end");
      out_->root_ = object;
      *stop = true;
      return OkStatus();
    case '(':
      marks_.push_back(stack_.size());
      return OkStatus();  // MARK
    case '0':
      return Pop(&object);  // POP
    case '1': {             // POP_MARK
      std::vector<const Object*> items;
      return PopMark(&items);
    }
    case '2':  // DUP
      TE_RETURN_IF_ERROR(Top(&object));
      stack_.push_back(object);
      return OkStatus();
    case 'N':
      return Push(Kind::kNone);  // NONE
    case 0x88:
      return PushInteger(1, Kind::kBool);  // NEWTRUE
    case 0x89:
      return PushInteger(0, Kind::kBool);  // NEWFALSE
    case 'J':                              // BININT
      TE_RETURN_IF_ERROR(TakeUnsigned(4, &n));
      return PushInteger(static_cast<int32_t>(static_cast<uint32_t>(n)));
    case 'K':
      TE_RETURN_IF_ERROR(TakeUnsigned(1, &n));
      return PushInteger(static_cast<int64_t>(n));  // BININT1
    case 'M':
      TE_RETURN_IF_ERROR(TakeUnsigned(2, &n));
      return PushInteger(static_cast<int64_t>(n));  // BININT2
    case 0x8a:
      TE_RETURN_IF_ERROR(TakeCounted(1, &raw));
      return PushLong(raw);  // LONG1
    case 0x8b:
      TE_RETURN_IF_ERROR(TakeCounted(4, &raw));
      return PushLong(raw);  // LONG4
    case 'G':                // BINFLOAT, big endian
      TE_RETURN_IF_ERROR(TakeUnsigned(8, &n));
      TE_RETURN_IF_ERROR(Push(Kind::kDouble, &object));
      object->number = std::bit_cast<double>(__builtin_bswap64(n));
      return OkStatus();
    case 'X':
      TE_RETURN_IF_ERROR(TakeCounted(4, &raw));
      return PushText(raw, Kind::kString);  // BINUNICODE
    case 0x8c:
      TE_RETURN_IF_ERROR(TakeCounted(1, &raw));
      return PushText(raw, Kind::kString);  // SHORT_BINUNICODE
    case 0x8d:
      TE_RETURN_IF_ERROR(TakeCounted(8, &raw));
      return PushText(raw, Kind::kString);  // BINUNICODE8
    case 'T':
      TE_RETURN_IF_ERROR(TakeCounted(4, &raw));
      return PushText(raw, Kind::kString);  // BINSTRING (Python 2's str)
    case 'U':
      TE_RETURN_IF_ERROR(TakeCounted(1, &raw));
      return PushText(raw, Kind::kString);  // SHORT_BINSTRING
    case 'B':
      TE_RETURN_IF_ERROR(TakeCounted(4, &raw));
      return PushText(raw, Kind::kBytes);  // BINBYTES
    case 'C':
      TE_RETURN_IF_ERROR(TakeCounted(1, &raw));
      return PushText(raw, Kind::kBytes);  // SHORT_BINBYTES
    case 0x8e:
      TE_RETURN_IF_ERROR(TakeCounted(8, &raw));
      return PushText(raw, Kind::kBytes);  // BINBYTES8
    case ')':
      return Push(Kind::kTuple);  // EMPTY_TUPLE
    case 't':
      return PushMarked(Kind::kTuple);  // TUPLE
    case 0x85:
      return PushTuple(1);  // TUPLE1
    case 0x86:
      return PushTuple(2);  // TUPLE2
    case 0x87:
      return PushTuple(3);  // TUPLE3
    case ']':
      return Push(Kind::kList);  // EMPTY_LIST
    case 'l':
      return PushMarked(Kind::kList);  // LIST
    case '}':
      return Push(Kind::kDict);  // EMPTY_DICT
    case 'd':
      return PushMarked(Kind::kDict);  // DICT
    case 0x8f:
      return Push(Kind::kSet);  // EMPTY_SET
    case 0x91:
      return PushMarked(Kind::kSet);  // FROZENSET
    case 'a':                         // APPEND
      TE_RETURN_IF_ERROR(Pop(&object));
      return Extend(Kind::kList, {object});
    case 'e':
      return ExtendMarked(Kind::kList);  // APPENDS
    case 0x90:
      return ExtendMarked(Kind::kSet);  // ADDITEMS
    case 'u':
      return ExtendMarked(Kind::kDict);  // SETITEMS
    case 's': {                          // SETITEM
      Object* value = nullptr;
      TE_RETURN_IF_ERROR(Pop(&value));
      TE_RETURN_IF_ERROR(Pop(&object));
      return Extend(Kind::kDict, {object, value});
    }
    case 'q':
      TE_RETURN_IF_ERROR(TakeUnsigned(1, &n));
      return Put(n);  // BINPUT
    case 'r':
      TE_RETURN_IF_ERROR(TakeUnsigned(4, &n));
      return Put(n);  // LONG_BINPUT
    case 0x94:
      return Put(memo_.size());  // MEMOIZE
    case 'h':
      TE_RETURN_IF_ERROR(TakeUnsigned(1, &n));
      return Get(n);  // BINGET
    case 'j':
      TE_RETURN_IF_ERROR(TakeUnsigned(4, &n));
      return Get(n);  // LONG_BINGET
    case 'c':         // GLOBAL
      TE_RETURN_IF_ERROR(TakeLine(&raw));
      TE_RETURN_IF_ERROR(TakeLine(&raw2));
      return PushGlobal(raw, raw2);
    case 0x93: {  // STACK_GLOBAL
      Object* module = nullptr;
      TE_RETURN_IF_ERROR(Pop(&object));
      TE_RETURN_IF_ERROR(Pop(&module));
      if (module->kind != Kind::kString || object->kind != Kind::kString)
        return CorruptData("a global whose name is no string");
      return PushGlobal(module->text, object->text);
    }
    case 'R':
      return Reduce();
    case 'b':
      return Build();
    case 'Q':
      return PersistentId();
    case 0x81:
    case 0x92:  // NEWOBJ, NEWOBJ_EX
      return Unsupported("it makes an object of a class (opcode {:#x}): refused", op);
    default:
      return Unsupported("opcode {:#x} is none that torch.save writes", op);
  }
}

Status Unpickler::Reduce() {
  Object *args = nullptr, *callable = nullptr;
  TE_RETURN_IF_ERROR(Pop(&args));
  TE_RETURN_IF_ERROR(Pop(&callable));
  if (callable->kind != Kind::kGlobal || args->kind != Kind::kTuple) {
    return CorruptData("{} is called with {}", callable->kind_name(), args->kind_name());
  }
  GlobalKind kind = GlobalKind::kOrderedDict;
  StoredType type = StoredType::kU8;
  bool untyped = false;
  if (!Classify(callable->text, &kind, &type, &untyped)) return Refuse(callable->text);
  switch (kind) {
    case GlobalKind::kOrderedDict:
      if (!args->items.empty())
        return Unsupported("OrderedDict is made from {} arguments; torch.save gives none",
                           args->items.size());
      return Push(Kind::kDict);
    case GlobalKind::kSize:
      if (args->items.size() != 1 || args->items[0]->kind != Kind::kTuple)
        return CorruptData("torch.Size of no tuple");
      stack_.push_back(const_cast<Object*>(args->items[0]));
      return OkStatus();
    case GlobalKind::kRebuildParameter:  // (tensor, requires_grad, hooks[, state])
      if (args->items.size() < 3 || args->items[0]->kind != Kind::kTensor)
        return CorruptData("{} of no tensor", callable->text);
      stack_.push_back(const_cast<Object*>(args->items[0]));
      return OkStatus();
    case GlobalKind::kRebuildTensor:
    case GlobalKind::kRebuildTensorV3:
      return RebuildTensor(callable->text, kind, *args);
    case GlobalKind::kStorage:
    case GlobalKind::kDType:
      break;
  }
  return Unsupported("it calls {}: refused", callable->text);
}

// The state of an OrderedDict holds a module's _metadata (versions): nothing that a tensor needs.
Status Unpickler::Build() {
  Object *state = nullptr, *object = nullptr;
  TE_RETURN_IF_ERROR(Pop(&state));
  TE_RETURN_IF_ERROR(Top(&object));
  if (object->kind != Kind::kDict)
    return Unsupported("it sets the state of {}: refused", object->kind_name());
  return OkStatus();
}

// ("storage", type, key, location, elements[, view]): torch/serialization.py, persistent_id.
Status Unpickler::PersistentId() {
  Object* id = nullptr;
  TE_RETURN_IF_ERROR(Pop(&id));
  const auto& items = id->items;
  if (id->kind != Kind::kTuple || items.size() < 5 || items[0]->kind != Kind::kString ||
      items[0]->text != "storage") {
    return CorruptData("a persistent id that is no storage");
  }
  GlobalKind kind = GlobalKind::kOrderedDict;
  StoredType type = StoredType::kU8;
  bool untyped = false;
  if (items[1]->kind != Kind::kGlobal || !Classify(items[1]->text, &kind, &type, &untyped) ||
      kind != GlobalKind::kStorage) {
    return CorruptData("a storage whose type is {}",
                       items[1]->kind == Kind::kGlobal ? items[1]->text : items[1]->kind_name());
  }
  if (items[2]->kind != Kind::kString || items[4]->kind != Kind::kInteger ||
      items[4]->integer < 0) {
    return CorruptData("a storage without key or size");
  }
  if (items.size() > 5 && items[5]->kind != Kind::kNone)
    return Unsupported("a view of a storage: torch.save before 0.4");
  Object* storage = nullptr;
  TE_RETURN_IF_ERROR(Push(Kind::kStorage, &storage));
  storage->type = type;
  storage->untyped = untyped;
  storage->text = items[2]->text;
  storage->integer = items[4]->integer;
  return OkStatus();
}

// (storage, offset, size, stride[, requires_grad, hooks[, dtype]]): torch/_utils.py.
Status Unpickler::RebuildTensor(const std::string& name, GlobalKind kind, const Object& args) {
  const auto& items = args.items;
  const bool v3 = kind == GlobalKind::kRebuildTensorV3;
  if (items.size() < (v3 ? 7u : 4u) || items[0]->kind != Kind::kStorage ||
      items[1]->kind != Kind::kInteger || items[2]->kind != Kind::kTuple ||
      items[3]->kind != Kind::kTuple) {
    return CorruptData(
        "{} is called with arguments of other kinds than (storage, offset, size, stride, ...)",
        name);
  }
  StoredType type = items[0]->type;
  if (v3) {
    GlobalKind dtype = GlobalKind::kOrderedDict;
    bool untyped = false;
    if (items[6]->kind != Kind::kGlobal || !Classify(items[6]->text, &dtype, &type, &untyped) ||
        dtype != GlobalKind::kDType) {
      return CorruptData("{} is called with no dtype", name);
    }
  }
  const auto& shape = items[2]->items;
  const auto& strides = items[3]->items;
  if (shape.size() != strides.size() || shape.size() > kMaxTensorRank) {
    return CorruptData("a tensor with {} dimensions and {} strides", shape.size(), strides.size());
  }
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i]->kind != Kind::kInteger || strides[i]->kind != Kind::kInteger ||
        shape[i]->integer < 0 || strides[i]->integer < 0) {
      return CorruptData("a tensor whose dimension or stride {} is no integer from 0 on", i);
    }
  }
  if (items[1]->integer < 0) return CorruptData("a tensor at offset {}", items[1]->integer);
  Object* tensor = nullptr;
  TE_RETURN_IF_ERROR(Push(Kind::kTensor, &tensor));
  tensor->type = type;
  tensor->integer = items[1]->integer;
  tensor->items = {items[0], items[2], items[3]};
  return OkStatus();
}

StatusOr<Pickle> Pickle::Parse(std::string_view bytes, size_t max_objects) {
  try {
    Pickle pickle;
    TE_RETURN_IF_ERROR(Unpickler(bytes, max_objects, &pickle).Run());
    return pickle;
  } catch (const std::bad_alloc&) {
    return OutOfMemory("no memory for a pickle of {} bytes", bytes.size());
  }
}

}  // namespace te
