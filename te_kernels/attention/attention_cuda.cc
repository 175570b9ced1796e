#include "te_kernels/attention/attention.h"
#include "te_kernels/attention/attention_cudnn.h"
#include "te_kernels/attention/attention_fallback_cuda.h"

namespace te {

Status AttentionForwardCuda(const Exec& exec, const AttentionForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateAttentionForward(args));
  TE_ASSIGN_OR_RETURN(const bool done, AttentionForwardCudnn(exec, args));
  return done ? OkStatus() : AttentionForwardFallbackCuda(exec, args);
}

Status AttentionBackwardCuda(const Exec& exec, const AttentionBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateAttentionBackward(args));
  TE_ASSIGN_OR_RETURN(const bool done, AttentionBackwardCudnn(exec, args));
  return done ? OkStatus() : AttentionBackwardFallbackCuda(exec, args);
}

}  // namespace te
