#include "te_core/parameter.h"

namespace te {

Status Parameter::EnsureGrad(MemoryResource* resource) {
  if (grad.defined() || !requires_grad) return OkStatus();
  TE_ASSIGN_OR_RETURN(grad, Tensor::Allocate(resource, dtype(), shape()));
  return OkStatus();
}

}  // namespace te
