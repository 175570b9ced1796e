#include "models/checkpoint/tensor_file.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

#include "fmt/ranges.h"
#include "te_kernels/cast/cast.h"

namespace te {
namespace {

struct TypeRow {
  StoredType type;
  const char* name;
  int bits;
};

constexpr TypeRow kTypes[] = {
    {StoredType::kF64, "F64", 64},
    {StoredType::kF32, "F32", 32},
    {StoredType::kF16, "F16", 16},
    {StoredType::kBF16, "BF16", 16},
    {StoredType::kI64, "I64", 64},
    {StoredType::kI32, "I32", 32},
    {StoredType::kI16, "I16", 16},
    {StoredType::kI8, "I8", 8},
    {StoredType::kU8, "U8", 8},
    {StoredType::kBool, "BOOL", 8},
    {StoredType::kU16, "U16", 16},
    {StoredType::kU32, "U32", 32},
    {StoredType::kU64, "U64", 64},
    {StoredType::kF8E4M3, "F8_E4M3", 8},
    {StoredType::kF8E5M2, "F8_E5M2", 8},
    {StoredType::kF8E8M0, "F8_E8M0", 8},
    {StoredType::kC64, "C64", 64},
    {StoredType::kF4, "F4", 4},
    {StoredType::kF6E2M3, "F6_E2M3", 6},
    {StoredType::kF6E3M2, "F6_E3M2", 6},
    {StoredType::kF8E4M3Fnuz, "F8_E4M3FNUZ", 8},
    {StoredType::kF8E5M2Fnuz, "F8_E5M2FNUZ", 8},
};

constexpr size_t kChunkBytes = size_t{1} << 20;

bool FloatingDType(StoredType type, DType* dtype) {
  switch (type) {
    case StoredType::kF64:
      *dtype = DType::kFloat64;
      return true;
    case StoredType::kF32:
      *dtype = DType::kFloat32;
      return true;
    case StoredType::kF16:
      *dtype = DType::kFloat16;
      return true;
    case StoredType::kBF16:
      *dtype = DType::kBFloat16;
      return true;
    default:
      return false;
  }
}

template <typename From, typename To>
bool ConvertIntegers(const void* from, void* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, static_cast<const char*>(from) + i * sizeof(From), sizeof(From));
    const int64_t wide = static_cast<int64_t>(value);
    if (wide < static_cast<int64_t>(std::numeric_limits<To>::min()) ||
        wide > static_cast<int64_t>(std::numeric_limits<To>::max())) {
      return false;
    }
    static_cast<To*>(to)[i] = static_cast<To>(wide);
  }
  return true;
}

template <typename To>
bool ConvertIntegersTo(StoredType type, const void* from, void* to, int64_t count) {
  switch (type) {
    case StoredType::kI64:
      return ConvertIntegers<int64_t, To>(from, to, count);
    case StoredType::kI32:
      return ConvertIntegers<int32_t, To>(from, to, count);
    case StoredType::kI16:
      return ConvertIntegers<int16_t, To>(from, to, count);
    case StoredType::kI8:
      return ConvertIntegers<int8_t, To>(from, to, count);
    default:
      return ConvertIntegers<uint8_t, To>(from, to, count);
  }
}

bool IsReadableInteger(StoredType type) {
  return type == StoredType::kI64 || type == StoredType::kI32 || type == StoredType::kI16 ||
         type == StoredType::kI8 || type == StoredType::kU8 || type == StoredType::kBool;
}

Status CheckConvertible(const TensorEntry& entry, DType to) {
  const bool from_float = IsFloating(entry.type);
  const bool to_float = to == DType::kFloat64 || to == DType::kFloat32 || to == DType::kBFloat16 ||
                        to == DType::kFloat16;
  const bool to_integer = to == DType::kInt64 || to == DType::kInt32 || to == DType::kUInt8;
  if (from_float && to_float) return OkStatus();
  if (IsReadableInteger(entry.type) && to_integer) return OkStatus();
  return Unsupported("stored as {}, wanted as {}; {}", Name(entry.type), Name(to),
                     to_float ? "weights are read from F64, F32, F16 and BF16"
                              : "integers are read from I64, I32, I16, I8, U8 and BOOL");
}

Status ConvertChunk(StoredType type, const void* from, DType dtype, void* to, int64_t count) {
  DType from_dtype;
  if (FloatingDType(type, &from_dtype)) {
    return CastCpu(Exec{},
                   {ConstTensorView(from, from_dtype, {count}), TensorView(to, dtype, {count})});
  }
  bool fits = false;
  if (dtype == DType::kInt64) fits = ConvertIntegersTo<int64_t>(type, from, to, count);
  if (dtype == DType::kInt32) fits = ConvertIntegersTo<int32_t>(type, from, to, count);
  if (dtype == DType::kUInt8) fits = ConvertIntegersTo<uint8_t>(type, from, to, count);
  return fits ? OkStatus() : CorruptData("a value does not fit {}", Name(dtype));
}

Status CopyTensor(const TensorEntry& entry, TensorStream* stream, TensorView to,
                  const CopyFromHost& copy) {
  StoredType same;
  const bool convert = !StoredTypeOf(to.dtype(), &same) || same != entry.type;
  if (!convert && copy == nullptr) return stream->Read(to.data(), to.bytes());
  const size_t from_size = static_cast<size_t>(BitsOf(entry.type) / 8);
  const size_t to_size = SizeOf(to.dtype());
  const int64_t chunk = static_cast<int64_t>(kChunkBytes / std::max(from_size, to_size));
  std::vector<char> raw(static_cast<size_t>(std::min(chunk, entry.elements)) * from_size);
  std::vector<char> converted(convert && copy != nullptr ? raw.size() / from_size * to_size : 0);
  for (int64_t done = 0; done < entry.elements; done += chunk) {
    const int64_t count = std::min(chunk, entry.elements - done);
    TE_RETURN_IF_ERROR(stream->Read(raw.data(), static_cast<size_t>(count) * from_size));
    char* destination = static_cast<char*>(to.data()) + static_cast<size_t>(done) * to_size;
    const void* source = raw.data();
    if (convert) {
      void* target = copy == nullptr ? destination : converted.data();
      TE_RETURN_IF_ERROR(ConvertChunk(entry.type, raw.data(), to.dtype(), target, count));
      source = target;
    }
    if (copy != nullptr)
      TE_RETURN_IF_ERROR(copy(source, TensorView(destination, to.dtype(), {count})));
  }
  return OkStatus();
}

}  // namespace

const char* Name(StoredType type) { return kTypes[static_cast<int>(type)].name; }

int BitsOf(StoredType type) { return kTypes[static_cast<int>(type)].bits; }

bool FindStoredType(std::string_view name, StoredType* type) {
  for (const TypeRow& row : kTypes) {
    if (name == row.name) {
      *type = row.type;
      return true;
    }
  }
  return false;
}

bool StoredTypeOf(DType dtype, StoredType* type) {
  switch (dtype) {
    case DType::kFloat64:
      *type = StoredType::kF64;
      return true;
    case DType::kFloat32:
      *type = StoredType::kF32;
      return true;
    case DType::kFloat16:
      *type = StoredType::kF16;
      return true;
    case DType::kBFloat16:
      *type = StoredType::kBF16;
      return true;
    case DType::kInt64:
      *type = StoredType::kI64;
      return true;
    case DType::kInt32:
      *type = StoredType::kI32;
      return true;
    case DType::kUInt8:
      *type = StoredType::kU8;
      return true;
    default:
      return false;
  }
}

bool IsFloating(StoredType type) {
  DType dtype;
  return FloatingDType(type, &dtype);
}

std::string ShapeToString(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string TensorEntry::ToString() const {
  return fmt::format("{} {}", Name(type), ShapeToString(shape));
}

const TensorEntry* TensorFile::Find(std::string_view name) const {
  for (const TensorEntry& entry : entries()) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

Status TensorFile::ReadTensor(size_t index, TensorView to, const CopyFromHost& copy) const {
  const TensorEntry& entry = entries()[index];
  const auto context = [&](const Status& status) {
    return status.WithContext(fmt::format("{}: tensor {}", path(), entry.name));
  };
  if (!std::ranges::equal(entry.shape, to.shape().dims())) {
    return InvalidArgument("{}: tensor {} has shape {}; expected {}", path(), entry.name,
                           ShapeToString(entry.shape), to.shape().ToString());
  }
  if (!to.IsDense())
    return InvalidArgument("{}: tensor {}: the destination {} is not dense", path(), entry.name,
                           to.ToString());
  if (Status status = CheckConvertible(entry, to.dtype()); !status.ok()) return context(status);
  if (entry.elements == 0) return OkStatus();
  try {
    StatusOr<std::unique_ptr<TensorStream>> stream = OpenStream(index);
    if (!stream.ok()) return context(stream.status());
    return context(CopyTensor(entry, stream->get(), to, copy));
  } catch (const std::bad_alloc&) {
    return context(OutOfMemory("no memory for the scratch of {} bytes of tensor", entry.bytes()));
  }
}

}  // namespace te
