#include "te_core/parameter.h"

namespace te {

Status Parameter::EnsureGrad(MemoryResource* resource) {
  if (grad.defined() || !requires_grad) return OkStatus();
  TE_ASSIGN_OR_RETURN(grad, Tensor::Allocate(resource, value.dtype(), value.shape()));
  return OkStatus();
}

}  // namespace te
