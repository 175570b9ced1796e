// What the two weight formats have in common: a file of named tensors, each read as a stream of its
// elements in row-major order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "te_kernels/base/status.h"
#include "te_kernels/base/view.h"

namespace te {

// An element type as files know it: more than the kernels compute with.
enum class StoredType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kBool,
  // Listed and sized, but refused by name when read.
  kU16,
  kU32,
  kU64,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kC64,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
};
const char* Name(StoredType type);  // safetensors' spelling: "BF16"
int BitsOf(StoredType type);        // of one element
bool FindStoredType(std::string_view name, StoredType* type);
// F64, F32, F16, BF16, I64, I32 and U8; false for others.
bool StoredTypeOf(DType dtype, StoredType* type);
bool IsFloating(StoredType type);

struct TensorEntry {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;  // any rank: a file may hold what no view can
  int64_t elements = 1;

  uint64_t bytes() const { return static_cast<uint64_t>(elements) * BitsOf(type) / 8; }
  // "BF16 [2, 3]".
  std::string ToString() const;
};
std::string ShapeToString(std::span<const int64_t> shape);

// The elements of one tensor, in order.
class TensorStream {
 public:
  virtual ~TensorStream() = default;
  // The next `bytes` bytes, a multiple of the element's size. Reading beyond the tensor is a bug
  // (kInternal).
  virtual Status Read(void* to, size_t bytes) = 0;
};

// Copies dense host memory to where a view lies, when that is not host memory; returns when `from`
// may be reused.
using CopyFromHost = std::function<Status(const void* from, TensorView to)>;
// The other way: dense memory of a view to the host; returns when the bytes are there.
using CopyToHost = std::function<Status(ConstTensorView from, void* to)>;

// Thread-compatible; must outlive its streams.
class TensorFile {
 public:
  virtual ~TensorFile() = default;
  virtual const std::string& path() const = 0;
  // In file order (the order of their data: reading in it reads forward).
  virtual const std::vector<TensorEntry>& entries() const = 0;
  // `index` into entries().
  virtual StatusOr<std::unique_ptr<TensorStream>> OpenStream(size_t index) const = 0;

  // Null when there is none.
  const TensorEntry* Find(std::string_view name) const;
  // Fills `to` (dense, of the entry's shape) with the tensor, converted to its dtype: any of F64,
  // F32, F16, BF16 to float64, float32, bfloat16 or float16 (rounded once, to nearest even); I64,
  // I32, I16, I8, U8, BOOL to int64, int32 or uint8 (a value out of range is an error). Without
  // conversion the bytes go straight into their destination; with one, or with `copy` (for device
  // memory), through a buffer of 1 MiB. Errors name file and tensor.
  Status ReadTensor(size_t index, TensorView to, const CopyFromHost& copy = {}) const;
};

// Opens a file by what its first bytes say: safetensors, or torch.save's zip. kCorruptData names
// the format's rule that is broken; files that are neither (git-lfs pointers, torch.save
// before 1.6, HTML) are named as such, with what to do.
StatusOr<std::unique_ptr<TensorFile>> OpenTensorFile(const std::string& path);

}  // namespace te
