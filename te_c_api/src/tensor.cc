// te_tensor_*: made, borrowed, read and written. DLPack is in dlpack.cc.
#include <algorithm>

#include "te_c_api/src/error.h"
#include "te_c_api/src/handles.h"
#include "te_c_api/src/tensor_shape.h"

namespace te::c_api {
namespace {

Status CheckByteCount(const te_tensor* tensor, size_t bytes) {
  if (bytes == tensor->view.bytes()) return OkStatus();
  return InvalidArgument("bytes is {}; expected {}, the size of {}", bytes, tensor->view.bytes(),
                         tensor->view.ToString());
}

// A dense copy of a strided view in scratch, or the view itself: what the two host copies need.
Status MakeDense(Context* context, TensorView view, TensorView* dense) {
  if (view.IsDense()) {
    *dense = view;
    return OkStatus();
  }
  TE_ASSIGN_OR_RETURN(*dense, context->scratch()->Allocate(view.dtype(), view.shape()));
  return OkStatus();
}

}  // namespace

StatusOr<Shape> ReadShape(int32_t rank, const int64_t* dims) {
  if (rank < 0 || rank > TE_MAX_RANK)
    return InvalidArgument("rank is {}; expected 0 to {}", rank, TE_MAX_RANK);
  if (rank > 0) TE_RETURN_IF_ERROR(CheckNotNull(dims, "shape"));
  int64_t bytes = 8;  // the largest element
  for (int32_t i = 0; i < rank; ++i) {
    if (dims[i] < 0) return InvalidArgument("shape[{}] is {}; expected 0 or more", i, dims[i]);
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(dims[i], 1), &bytes)) {
      return InvalidArgument("shape[{}] is {}: the tensor's size overflows 63 bits", i, dims[i]);
    }
  }
  return Shape(std::span<const int64_t>(dims, static_cast<size_t>(rank)));
}

StatusOr<TensorView> MakeView(void* data, DType dtype, const Shape& shape, const int64_t* strides) {
  if (strides == nullptr) return TensorView(data, dtype, shape);
  std::array<int64_t, kMaxRank> own{};
  int64_t last = 0;  // offset of the last element: it must be addressable
  for (int i = 0; i < shape.rank(); ++i) {
    if (strides[i] < 0)
      return InvalidArgument("strides[{}] is {}; expected 0 or more", i, strides[i]);
    int64_t extent;
    if (__builtin_mul_overflow(strides[i], std::max<int64_t>(shape[i] - 1, 0), &extent) ||
        __builtin_add_overflow(last, extent, &last) || last > INT64_MAX / 8) {
      return InvalidArgument("strides[{}] is {}: the tensor's extent overflows 63 bits", i,
                             strides[i]);
    }
    own[i] = strides[i];
  }
  return TensorView(data, dtype, shape, own);
}

}  // namespace te::c_api

using namespace te;         // NOLINT: the whole file is one thin layer over te
using namespace te::c_api;  // NOLINT

te_status te_tensor_create(te_context* context, te_dtype dtype, int32_t rank, const int64_t* shape,
                           te_tensor** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    TE_ASSIGN_OR_RETURN(const DType core_dtype, ToDType(dtype, "dtype"));
    TE_ASSIGN_OR_RETURN(const Shape core_shape, ReadShape(rank, shape));
    TE_ASSIGN_OR_RETURN(Tensor tensor, context->core->NewTensor(core_dtype, core_shape));
    auto memory = std::make_shared<Tensor>(std::move(tensor));
    auto handle = std::make_unique<te_tensor>(context->core.get(), memory->view());
    handle->memory = std::move(memory);
    *out = handle.release();
    return OkStatus();
  });
}

te_status te_tensor_borrow(te_context* context, te_dtype dtype, int32_t rank, const int64_t* shape,
                           const int64_t* strides, void* data, te_tensor** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(context, "context"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    TE_RETURN_IF_ERROR(CheckNotNull(data, "data"));
    TE_ASSIGN_OR_RETURN(const DType core_dtype, ToDType(dtype, "dtype"));
    TE_ASSIGN_OR_RETURN(const Shape core_shape, ReadShape(rank, shape));
    TE_ASSIGN_OR_RETURN(const TensorView view, MakeView(data, core_dtype, core_shape, strides));
    *out = new te_tensor(context->core.get(), view);
    return OkStatus();
  });
}

void te_tensor_destroy(te_tensor* tensor) {
  if (Check(tensor, "tensor").ok()) delete tensor;
}

te_status te_tensor_dtype(const te_tensor* tensor, te_dtype* out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(tensor, "tensor"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    *out = static_cast<te_dtype>(tensor->view.dtype());
    return OkStatus();
  });
}

te_status te_tensor_rank(const te_tensor* tensor, int32_t* out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(tensor, "tensor"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    *out = tensor->view.rank();
    return OkStatus();
  });
}

namespace {

Status CopyDims(const te_tensor* tensor, int32_t capacity, const int64_t* from, int64_t* out) {
  const int rank = tensor->view.rank();
  if (capacity < rank)
    return InvalidArgument("capacity is {}; expected at least the tensor's rank, {}", capacity,
                           rank);
  if (rank > 0) TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
  std::copy_n(from, rank, out);
  return OkStatus();
}

}  // namespace

te_status te_tensor_shape(const te_tensor* tensor, int32_t capacity, int64_t* out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(tensor, "tensor"));
    return CopyDims(tensor, capacity, tensor->view.shape().dims().data(), out);
  });
}

te_status te_tensor_strides(const te_tensor* tensor, int32_t capacity, int64_t* out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(tensor, "tensor"));
    return CopyDims(tensor, capacity, tensor->view.strides().data(), out);
  });
}

te_status te_tensor_data(const te_tensor* tensor, void** out) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(tensor, "tensor"));
    TE_RETURN_IF_ERROR(CheckNotNull(out, "out"));
    *out = tensor->view.data();
    return OkStatus();
  });
}

te_status te_tensor_read(const te_tensor* tensor, void* host, size_t bytes) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(tensor, "tensor"));
    TE_RETURN_IF_ERROR(CheckByteCount(tensor, bytes));
    if (bytes == 0) return OkStatus();
    TE_RETURN_IF_ERROR(CheckNotNull(host, "host"));
    Context* context = tensor->context;
    ArenaScope scope(context->scratch());
    TensorView dense;
    TE_RETURN_IF_ERROR(MakeDense(context, tensor->view, &dense));
    if (dense.data() != tensor->view.data()) {
      TE_RETURN_IF_ERROR(context->kernels().cast(context->exec(), {.x = tensor->view, .y = dense}));
    }
    return context->CopyToHost(dense, host);
  });
}

te_status te_tensor_write(te_tensor* tensor, const void* host, size_t bytes) {
  return Guard([&]() -> Status {
    TE_RETURN_IF_ERROR(Check(tensor, "tensor"));
    if (tensor->read_only) {
      return InvalidArgument(
          "tensor is a read-only view of a parameter or gradient; parameters are written by "
          "te_layer_set_parameter");
    }
    TE_RETURN_IF_ERROR(CheckByteCount(tensor, bytes));
    if (bytes == 0) return OkStatus();
    TE_RETURN_IF_ERROR(CheckNotNull(host, "host"));
    Context* context = tensor->context;
    ArenaScope scope(context->scratch());
    TensorView dense;
    TE_RETURN_IF_ERROR(MakeDense(context, tensor->view, &dense));
    TE_RETURN_IF_ERROR(context->CopyFromHost(host, dense));
    if (dense.data() != tensor->view.data()) {
      TE_RETURN_IF_ERROR(context->kernels().cast(context->exec(), {.x = dense, .y = tensor->view}));
    }
    return context->Synchronize();  // small copies are still on their way
  });
}
