// One of cuBLASLt's algorithms, by name.
#pragma once

#include <cublasLt.h>

#include <istream>
#include <string>

#include "te_kernels/base/status.h"

namespace te {

Status ToStatus(cublasStatus_t status, const char* what);

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

}  // namespace te
