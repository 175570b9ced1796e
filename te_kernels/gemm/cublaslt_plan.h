// One matrix product as cuBLASLt sees it: what a choice of algorithm depends on, what names an
// algorithm, and the library's descriptors.
#pragma once

#include <cublasLt.h>

#include <istream>
#include <string>
#include <vector>

#include "te_kernels/gemm/cublaslt_matmul.h"

namespace te {

// Hopper's kernels ask for at most this much (NVIDIA's recommendation for the architecture).
inline constexpr size_t kLtWorkspaceBytes = size_t{32} << 20;

Status ToStatus(cublasStatus_t status, const char* what);

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

// What names one of cuBLASLt's algorithms, as numbers that a file can hold: a pinned choice is
// built anew from them and checked by the library, never taken as opaque bytes.
struct LtAlgorithm {
  int32_t id = -1;
  uint32_t tile = 0;
  uint32_t stages = 0;
  int32_t split_k = 1;
  uint32_t reduction = 0;
  uint32_t swizzling = 0;
  uint32_t custom = 0;
  uint16_t inner_shape = 0;
  uint16_t cluster_shape = 0;

  // Calls visit(attribute, member) for all that is configured.
  template <typename Config, typename Visit>
  static Status ForEach(Config& config, const Visit& visit) {
    TE_RETURN_IF_ERROR(visit(CUBLASLT_ALGO_CONFIG_TILE_ID, config.tile));
    TE_RETURN_IF_ERROR(visit(CUBLASLT_ALGO_CONFIG_STAGES_ID, config.stages));
    TE_RETURN_IF_ERROR(visit(CUBLASLT_ALGO_CONFIG_SPLITK_NUM, config.split_k));
    TE_RETURN_IF_ERROR(visit(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, config.reduction));
    TE_RETURN_IF_ERROR(visit(CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, config.swizzling));
    TE_RETURN_IF_ERROR(visit(CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, config.custom));
    TE_RETURN_IF_ERROR(visit(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, config.inner_shape));
    return visit(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, config.cluster_shape);
  }

  static StatusOr<LtAlgorithm> Of(const cublasLtMatmulAlgo_t& algorithm) {
    LtAlgorithm config;
    const auto get = [&algorithm](cublasLtMatmulAlgoConfigAttributes_t attribute, auto& value) {
      size_t written = 0;
      return ToStatus(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value,
                                                           sizeof(value), &written),
                      "cublasLtMatmulAlgoConfigGetAttribute");
    };
    TE_RETURN_IF_ERROR(get(CUBLASLT_ALGO_CONFIG_ID, config.id));
    TE_RETURN_IF_ERROR(ForEach(config, get));
    return config;
  }

  std::string ToString() const {
    return fmt::format("{} {} {} {} {} {} {} {} {}", id, tile, stages, split_k, reduction,
                       swizzling, custom, inner_shape, cluster_shape);
  }
  static bool Parse(std::istream& in, LtAlgorithm* config) {
    return static_cast<bool>(in >> config->id >> config->tile >> config->stages >>
                             config->split_k >> config->reduction >> config->swizzling >>
                             config->custom >> config->inner_shape >> config->cluster_shape);
  }
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
