// DLPack in and out. The two structs are spelled out here from the specification
// (https://dmlc.github.io/dlpack, version 1.0), so that neither te nor its users need dlpack.h.

#include <algorithm>

#include "te_c_api/src/error.h"
#include "te_c_api/src/handles.h"
#include "te_c_api/src/tensor_shape.h"

namespace {

constexpr int32_t kDLCPU = 1;
constexpr uint8_t kDLInt = 0;
constexpr uint8_t kDLUInt = 1;
constexpr uint8_t kDLFloat = 2;
constexpr uint8_t kDLBfloat = 4;
constexpr uint8_t kDLBool = 6;
constexpr uint64_t kReadOnlyFlag = 1;
constexpr uint32_t kMajorVersion = 1;

struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;
  int32_t device_type;
  int32_t device_id;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};

}  // namespace

struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor* self);
};

struct DLManagedTensorVersioned {
  struct {
    uint32_t major;
    uint32_t minor;
  } version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned* self);
  uint64_t flags;
  DLTensor dl_tensor;
};

namespace te::c_api {
namespace {

StatusOr<DType> FromDLPack(const DLDataType& dtype) {
  const struct {
    uint8_t code, bits;
    DType dtype;
  } table[] = {{kDLFloat, 32, DType::kFloat32}, {kDLFloat, 64, DType::kFloat64},
               {kDLFloat, 16, DType::kFloat16}, {kDLBfloat, 16, DType::kBFloat16},
               {kDLInt, 32, DType::kInt32},     {kDLInt, 64, DType::kInt64},
               {kDLUInt, 8, DType::kUInt8},     {kDLBool, 8, DType::kUInt8}};
  if (dtype.lanes == 1) {
    for (const auto& row : table) {
      if (row.code == dtype.code && row.bits == dtype.bits) return row.dtype;
    }
  }
  return Unsupported(
      "DLPack dtype (code {}, bits {}, lanes {}); expected float32, float64, float16, bfloat16, "
      "int32, int64, uint8 or bool",
      dtype.code, dtype.bits, dtype.lanes);
}

StatusOr<DLDataType> ToDLPack(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return DLDataType{kDLFloat, 32, 1};
    case DType::kFloat64:
      return DLDataType{kDLFloat, 64, 1};
    case DType::kFloat16:
      return DLDataType{kDLFloat, 16, 1};
    case DType::kBFloat16:
      return DLDataType{kDLBfloat, 16, 1};
    case DType::kInt32:
      return DLDataType{kDLInt, 32, 1};
    case DType::kInt64:
      return DLDataType{kDLInt, 64, 1};
    case DType::kUInt8:
      return DLDataType{kDLUInt, 8, 1};
    case DType::kFloat8E4M3:
    case DType::kFloat8E5M2:
      break;
  }
  return Unsupported("tensor of {}: DLPack 1.0 has no such dtype", Name(dtype));
}

StatusOr<TensorView> ViewOf(const DLTensor& tensor, const Context& context) {
  if (tensor.device_type != kDLCPU) {
    return InvalidArgument(
        "managed->dl_tensor.device is {}; expected {} (CPU): the context's device is {}",
        tensor.device_type, kDLCPU, context.options().device);
  }
  TE_ASSIGN_OR_RETURN(const DType dtype, FromDLPack(tensor.dtype));
  TE_ASSIGN_OR_RETURN(const Shape shape, ReadShape(tensor.ndim, tensor.shape));
  if (tensor.data == nullptr && shape.elements() != 0)
    return InvalidArgument("managed->dl_tensor.data is NULL");
  return MakeView(static_cast<char*>(tensor.data) + tensor.byte_offset, dtype, shape,
                  tensor.strides);
}

template <typename Managed>
Status Import(te_context* context, Managed* managed, bool read_only, te_tensor** out) {
  TE_ASSIGN_OR_RETURN(const TensorView view, ViewOf(managed->dl_tensor, *context->core));
  auto handle = std::make_unique<te_tensor>(context->core.get(), view);
  handle->read_only = read_only;
  // Last: from here on nothing fails, and the handle owns *managed. (The control block is allocated
  // before the pointer is taken: were that to throw, shared_ptr would run the deleter, so a guard
  // keeps it from doing so until we are done.)
  auto armed = std::make_shared<bool>(false);
  handle->memory = std::shared_ptr<void>(managed, [armed](void* pointer) {
    auto* self = static_cast<Managed*>(pointer);
    if (*armed && self->deleter != nullptr) self->deleter(self);
  });
  *armed = true;
  *out = handle.release();
  return OkStatus();
}

// An exported struct, with the shape that it points to and a share of the tensor's memory.
template <typename Managed>
struct Export {
  Managed managed{};
  int64_t shape[kMaxRank];
  int64_t strides[kMaxRank];
  std::shared_ptr<void> memory;
};

template <typename Managed>
StatusOr<std::unique_ptr<Export<Managed>>> MakeExport(const te_tensor* tensor) {
  auto holder = std::make_unique<Export<Managed>>();
  const TensorView& view = tensor->view;
  DLTensor& out = holder->managed.dl_tensor;
  TE_ASSIGN_OR_RETURN(out.dtype, ToDLPack(view.dtype()));
  std::copy_n(view.shape().dims().data(), view.rank(), holder->shape);
  std::copy_n(view.strides().data(), view.rank(), holder->strides);
  holder->memory = tensor->memory;
  out.data = view.data();
  out.device_type = kDLCPU;
  out.ndim = view.rank();
  out.shape = holder->shape;
  out.strides = holder->strides;
  holder->managed.manager_ctx = holder.get();
  holder->managed.deleter = [](Managed* self) {
    delete static_cast<Export<Managed>*>(self->manager_ctx);
  };
  return holder;
}

}  // namespace
}  // namespace te::c_api

using namespace te;         // NOLINT: the whole file is one thin layer over te
using namespace te::c_api;  // NOLINT

te_status te_tensor_from_dlpack(te_context* context, DLManagedTensor* managed, te_tensor** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    TE_RETURN_IF_ERROR(CheckNotNull(managed, "managed"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    return Import(context, managed, /*read_only=*/false, out);
  });
}

te_status te_tensor_from_dlpack_versioned(te_context* context, DLManagedTensorVersioned* managed,
                                          te_tensor** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    TE_RETURN_IF_ERROR(CheckNotNull(managed, "managed"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    if (managed->version.major != kMajorVersion) {
      return Unsupported("managed->version is {}.{}; expected {}.x", managed->version.major,
                         managed->version.minor, kMajorVersion);
    }
    return Import(context, managed, (managed->flags & kReadOnlyFlag) != 0, out);
  });
}

te_status te_tensor_to_dlpack(te_tensor* tensor, DLManagedTensor** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(tensor, "tensor"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    if (tensor->read_only) {
      return InvalidArgument(
          "tensor is read only, which DLManagedTensor cannot say: use "
          "te_tensor_to_dlpack_versioned");
    }
    TE_ASSIGN_OR_RETURN(auto holder, MakeExport<DLManagedTensor>(tensor));
    *out = &holder.release()->managed;
    return OkStatus();
  });
}

te_status te_tensor_to_dlpack_versioned(te_tensor* tensor, DLManagedTensorVersioned** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(tensor, "tensor"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    TE_ASSIGN_OR_RETURN(auto holder, MakeExport<DLManagedTensorVersioned>(tensor));
    holder->managed.version = {kMajorVersion, 0};
    holder->managed.flags = tensor->read_only ? kReadOnlyFlag : 0;
    *out = &holder.release()->managed;
    return OkStatus();
  });
}
