#include "te_kernels/cuda/cuda_state.h"

#include <cuda_runtime_api.h>

#include "te_kernels/cuda/cuda_status.h"

namespace te::cuda {

StatusOr<std::unique_ptr<CudaState>> CudaState::Create() {
  std::unique_ptr<CudaState> state(new CudaState);
  int device = 0, major = 0, minor = 0;
  TE_RETURN_IF_ERROR(ToStatus(cudaGetDevice(&device), "cudaGetDevice"));
  const struct {
    int* value;
    cudaDeviceAttr attribute;
  } attributes[] = {{&state->num_sms_, cudaDevAttrMultiProcessorCount},
                    {&major, cudaDevAttrComputeCapabilityMajor},
                    {&minor, cudaDevAttrComputeCapabilityMinor}};
  for (const auto& [value, attribute] : attributes) {
    TE_RETURN_IF_ERROR(
        ToStatus(cudaDeviceGetAttribute(value, attribute, device), "cudaDeviceGetAttribute"));
  }
  state->compute_capability_ = 10 * major + minor;
  if (const cublasStatus_t status = cublasLtCreate(&state->cublas_lt_);
      status != CUBLAS_STATUS_SUCCESS) {
    return Internal("cublasLtCreate: {}", cublasLtGetStatusString(status));
  }
  return state;
}

CudaState::~CudaState() {
  // The caches hold plans of these handles.
  gemm_cache.reset();
  attention_cache.reset();
  if (cudnn_ != nullptr) cudnnDestroy(cudnn_);
  if (cublas_lt_ != nullptr) cublasLtDestroy(cublas_lt_);
}

StatusOr<cudnnHandle_t> CudaState::Cudnn(cudaStream_t stream) {
  if (cudnn_ == nullptr) {
    if (const cudnnStatus_t status = cudnnCreate(&cudnn_); status != CUDNN_STATUS_SUCCESS) {
      cudnn_ = nullptr;
      return Internal("cudnnCreate: {}", cudnnGetErrorString(status));
    }
  }
  if (const cudnnStatus_t status = cudnnSetStream(cudnn_, stream); status != CUDNN_STATUS_SUCCESS) {
    return Internal("cudnnSetStream: {}", cudnnGetErrorString(status));
  }
  return cudnn_;
}

StatusOr<CudaState*> GetCudaState(const Exec& exec) {
  auto* state = dynamic_cast<CudaState*>(exec.libraries);
  if (state == nullptr) {
    return FailedPrecondition(
        "this Exec has no state of the CUDA libraries (Device::NewLibraryState makes it)");
  }
  return state;
}

StatusOr<std::string> CardAndDriver() {
  int device = 0, driver = 0;
  cudaDeviceProp properties;
  TE_RETURN_IF_ERROR(ToStatus(cudaGetDevice(&device), "cudaGetDevice"));
  TE_RETURN_IF_ERROR(
      ToStatus(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
  TE_RETURN_IF_ERROR(ToStatus(cudaDriverGetVersion(&driver), "cudaDriverGetVersion"));
  return fmt::format("{} | driver {}", properties.name, driver);
}

}  // namespace te::cuda
