// The backend that a test of an operation runs on: the same source is built once for the CPU and,
// with TE_TEST_CUDA, once for CUDA (bazel/operation_test.bzl).
//   TE_OP(RmsNormForward)(exec, args)   calls RmsNormForwardCpu or RmsNormForwardCuda, and waits
//   TestExec, TestLibraryExec           an Exec (with the libraries' state, for matrix products)
// Tensors (HostTensor) and Shared values lie where both the test and the device reach them.
#pragma once

#ifdef TE_TEST_CUDA
#include "te_kernels/testing/cuda_exec.h"
#define TE_OP(name) ::te::test::Synchronous(name##Cuda)
#else
#include "te_kernels/testing/cpu_exec.h"
#define TE_OP(name) name##Cpu
#endif

namespace te::test {

#ifdef TE_TEST_CUDA
inline constexpr bool kOnCuda = true;
using TestExec = CudaExec;
using TestLibraryExec = CudaExec;
#else
inline constexpr bool kOnCuda = false;
using TestExec = CpuExec;
#endif

}  // namespace te::test
