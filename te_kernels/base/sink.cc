#include "te_kernels/base/sink.h"

#include "te_kernels/base/check.h"

namespace te {
namespace {

// A dense result without elements needs no address, but has a shape.
bool HasDense(const Sink& sink) { return sink.dense.defined() || sink.dense.rank() != 0; }

}  // namespace

Status CheckSink(const char* operation, const char* argument, const Sink& sink, DType dtype,
                 const Shape& shape, int64_t rows, int64_t columns) {
  if (HasDense(sink) || !sink.quantized())
    TE_RETURN_IF_ERROR(CheckTensor(operation, argument, sink.dense, dtype, shape));
  if (!sink.quantized()) return OkStatus();
  return CheckQuantSpec(operation, argument, sink.quant, rows, columns);
}

StatusOr<TensorView> DenseResult(const Exec& exec, const Sink& sink, DType dtype,
                                 const Shape& shape) {
  if (HasDense(sink)) return sink.dense;
  return exec.scratch->Allocate(dtype, shape);
}

}  // namespace te
