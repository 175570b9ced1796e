#include "te_c_api/src/handles.h"

namespace te::c_api {

const char* Name(Tag tag) {
  switch (tag) {
    case Tag::kContext:
      return "te_context";
    case Tag::kTensor:
      return "te_tensor";
    case Tag::kRecipe:
      return "te_fp8_recipe";
    case Tag::kLayer:
      return "te_layer";
    case Tag::kSaved:
      return "te_saved";
    case Tag::kOptimizer:
      return "te_optimizer";
    case Tag::kLlama:
      return "te_llama";
    case Tag::kDestroyed:
      return "destroyed handle";
  }
  return "unknown handle";
}

StatusOr<DType> ToDType(te_dtype dtype, const char* argument) {
  if (dtype < TE_DTYPE_FLOAT32 || dtype > TE_DTYPE_FLOAT8_E5M2) {
    return InvalidArgument("{} is {}; expected one of TE_DTYPE_* (0 to {})", argument, dtype,
                           TE_DTYPE_FLOAT8_E5M2);
  }
  return static_cast<DType>(dtype);
}

Status ReadTensor(const te_tensor* tensor, const char* argument, const Context* context,
                  TensorView* out) {
  if (tensor == nullptr) {
    *out = TensorView();
    return OkStatus();
  }
  return ReadRequiredTensor(tensor, argument, context, out);
}

Status ReadRequiredTensor(const te_tensor* tensor, const char* argument, const Context* context,
                          TensorView* out) {
  TE_RETURN_IF_ERROR(Check(tensor, argument));
  if (tensor->context != context) {
    return InvalidArgument("{} belongs to another context", argument);
  }
  *out = tensor->view;
  return OkStatus();
}

}  // namespace te::c_api
