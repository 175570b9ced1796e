#include "te_kernels/embedding/embedding.h"

namespace te {
namespace {

Status ValidateTensors(const char* operation, const char* table_name, const ConstTensorView& ids,
                       const ConstTensorView& table, const char* rows_name,
                       const ConstTensorView& rows) {
  if (ids.dtype() != DType::kInt32 || ids.rank() != 1 || !ids.IsDense()) {
    return InvalidArgument("{}: ids is {}; expected dense int32 [T]", operation, ids.ToString());
  }
  if (table.dtype() != DType::kFloat32 && table.dtype() != DType::kBFloat16) {
    return InvalidArgument("{}: {} is {}; expected float32 or bfloat16", operation, table_name,
                           table.ToString());
  }
  if (table.rank() != 2 || !table.IsDense()) {
    return InvalidArgument("{}: {} is {}; expected dense [V, H]", operation, table_name,
                           table.ToString());
  }
  const Shape expected = {ids.dim(0), table.dim(1)};
  if (rows.shape() != expected || rows.dtype() != table.dtype() || !rows.IsDense()) {
    return InvalidArgument("{}: {} is {}; expected dense {} {}", operation, rows_name,
                           rows.ToString(), Name(table.dtype()), expected.ToString());
  }
  const struct {
    const char* name;
    const ConstTensorView& view;
  } tensors[] = {{"ids", ids}, {table_name, table}, {rows_name, rows}};
  for (const auto& [name, view] : tensors) {
    if (view.elements() != 0 && !view.defined()) {
      return InvalidArgument("{}: {} is nothing; expected {} {}", operation, name,
                             Name(view.dtype()), view.shape().ToString());
    }
  }
  return OkStatus();
}

}  // namespace

Status ValidateEmbeddingForward(const EmbeddingForwardArgs& args) {
  return ValidateTensors("embedding", "table", args.ids, args.table, "out", args.out);
}

Status ValidateEmbeddingBackward(const EmbeddingBackwardArgs& args) {
  TE_RETURN_IF_ERROR(
      ValidateTensors("embedding backward", "dtable", args.ids, args.dtable, "dout", args.dout));
  if (args.padding_idx < -1 || args.padding_idx >= args.dtable.dim(0)) {
    return InvalidArgument(
        "embedding backward: padding_idx is {}; expected -1 (none) or a row of dtable {}",
        args.padding_idx, args.dtable.ToString());
  }
  return OkStatus();
}

}  // namespace te
