// One matrix product as cuBLASLt sees it: what a choice of algorithm depends on, what names an
// algorithm, and the library's descriptors.
#pragma once

#include <cublasLt.h>

#include <string>
#include <vector>

#include "te_kernels/gemm/cublaslt_matmul.h"
#include "te_kernels/gemm/lt_algorithm.h"

namespace te {

// Hopper's kernels ask for at most this much (NVIDIA's recommendation for the architecture).
inline constexpr size_t kLtWorkspaceBytes = size_t{32} << 20;

// Everything that a choice depends on.
struct LtProblem {
  int64_t m, n, k;  // cuBLASLt's: m = columns of d
  bool transpose_a, transpose_b;
  int64_t lda, ldb, ldc, ldd;
  DType type_a, type_b, result;
  bool bias, accumulate;
  int64_t batch, distance_a, distance_b, distance_d;
  uint32_t align_a, align_b, align_c, align_d;
  bool codes, fast_accumulation;
  QuantScaling scaling_a, scaling_b;

  static StatusOr<LtProblem> Of(const LtMatmulArgs& args, const ConstTensorView& c);
  // In the order of the row-major product, whose first operand is cuBLASLt's second.
  std::string Codes() const;
  std::string ToString() const;
  double flops() const;
};

// An algorithm as the library takes it, and the workspace that it asks for.
struct LtCandidate {
  cublasLtMatmulAlgo_t algorithm{};
  size_t workspace_bytes = 0;  // at most kLtWorkspaceBytes
};

// cuBLASLt's descriptors of one problem.
class LtPlan {
 public:
  // `sms`: multiprocessors to use; 0: all.
  explicit LtPlan(const LtProblem& problem, int sms = 0) : problem_(problem), sms_(sms) {}
  ~LtPlan();
  LtPlan(const LtPlan&) = delete;
  LtPlan& operator=(const LtPlan&) = delete;

  Status Create();
  // The addresses that the operation's description holds.
  Status Bind(const LtMatmulArgs& args) const;
  // Deterministic algorithms that cuBLASLt offers, its favourite first; at most `count`.
  StatusOr<std::vector<LtCandidate>> Candidates(cublasLtHandle_t handle, int count) const;
  // `workspace`: at least as many bytes as the candidate asks for.
  Status Run(const Exec& exec, cublasLtHandle_t handle, const LtMatmulArgs& args, const void* c,
             void* d, const LtCandidate& candidate, void* workspace, size_t workspace_bytes) const;
  // The algorithm that `config` names, if the library still takes it for this problem.
  StatusOr<LtCandidate> Rebuild(cublasLtHandle_t handle, const LtAlgorithm& config) const;

  Status Choose(const LtCandidate& candidate);
  const LtCandidate& chosen() const { return chosen_; }
  const LtAlgorithm& config() const { return config_; }
  const std::string& name() const { return name_; }
  const LtProblem& problem() const { return problem_; }

 private:
  template <typename T>
  Status Set(cublasLtMatmulDescAttributes_t attribute, const T& value) const {
    return ToStatus(cublasLtMatmulDescSetAttribute(operation_, attribute, &value, sizeof(value)),
                    "cublasLtMatmulDescSetAttribute");
  }
  Status MakeLayout(cublasLtMatrixLayout_t* layout, DType dtype, int64_t rows, int64_t columns,
                    int64_t leading, int64_t distance) const;

  LtProblem problem_;
  int sms_;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, c_ = nullptr, d_ = nullptr;
  LtCandidate chosen_;
  LtAlgorithm config_;
  std::string name_;
};

}  // namespace te
