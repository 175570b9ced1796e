#include "te_kernels/gemm/cublaslt_matmul.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <sstream>
#include <unordered_map>
#include <vector>

#include "te_kernels/cuda/cuda_event.h"
#include "te_kernels/cuda/cuda_status.h"

namespace te {
namespace {

// Hopper's kernels ask for at most this much (NVIDIA's recommendation for the architecture).
constexpr size_t kWorkspaceBytes = size_t{32} << 20;
// Split sums meet in float32 in the workspace, in a fixed order: no atomics into d, no partial sums
// rounded to its dtype.
constexpr uint32_t kReductions =
    CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
constexpr int kMaxCandidates = 64;
// Of them, those that a first, short look finds fastest are timed for longer.
constexpr size_t kFinalists = 5;
// Below this a wrong choice costs microseconds.
constexpr double kMinTunedFlops = 2e9;

Status ToStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return OkStatus();
  return Internal("{}: {}", what, cublasLtGetStatusString(status));
}

#define TE_RETURN_IF_LT_ERROR(call) TE_RETURN_IF_ERROR(ToStatus(call, #call))

cudaDataType_t TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat8E4M3:
      return CUDA_R_8F_E4M3;
    case DType::kFloat8E5M2:
      return CUDA_R_8F_E5M2;
    case DType::kFloat32:
      return CUDA_R_32F;
    default:
      return CUDA_R_16BF;
  }
}

DType OperandType(const ConstTensorView& view, const LtCodes& codes) {
  switch (codes.format) {
    case QuantFormat::kFloat8E4M3:
      return DType::kFloat8E4M3;
    case QuantFormat::kFloat8E5M2:
      return DType::kFloat8E5M2;
    default:
      return view.dtype();
  }
}

int32_t ScaleModeOf(QuantScaling scaling) {
  switch (scaling) {
    case QuantScaling::kBlock1x128:
      return CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
    case QuantScaling::kBlock128x128:
      return CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
    default:
      return CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  }
}

// kTensorCurrent is the same to a product.
const char* NameOfScales(QuantScaling scaling) {
  return BlockOf(scaling).rows == 0 ? Name(QuantScaling::kTensor) : Name(scaling);
}

// The largest power of two, up to 256, that divides every address that the batch meets.
uint32_t AlignmentOf(const void* data, int64_t batch, int64_t distance, DType dtype) {
  uintptr_t bits = reinterpret_cast<uintptr_t>(data);
  if (batch > 1) bits |= static_cast<uintptr_t>(distance) * SizeOf(dtype);
  uint32_t alignment = 256;
  while (bits % alignment != 0) alignment /= 2;
  return alignment;
}

// A row-major view with a stride of 1, as cuBLASLt's column-major operand: transposed when its rows
// are contiguous.
struct Layout {
  bool rows_contiguous;  // stride 1 in the second dimension
  int64_t leading;
};

StatusOr<Layout> LayoutOf(const ConstTensorView& view, const char* name) {
  const int64_t rows = view.dim(0), columns = view.dim(1);
  if (view.stride(1) == 1 || columns == 1)
    return Layout{true, std::max(rows == 1 ? columns : view.stride(0), columns)};
  if (view.stride(0) == 1 || rows == 1)
    return Layout{false, std::max(columns == 1 ? rows : view.stride(1), rows)};
  return Unsupported("matmul: {} is {}; expected a stride of 1 in one of its dimensions", name,
                     view.ToString());
}

// Everything that a choice depends on.
struct Problem {
  int64_t m, n, k;  // cuBLASLt's: m = columns of d
  bool transpose_a, transpose_b;
  int64_t lda, ldb, ldc, ldd;
  DType type_a, type_b, result;
  bool bias, accumulate;
  int64_t batch, distance_a, distance_b, distance_d;
  uint32_t align_a, align_b, align_c, align_d;
  bool codes, fast_accumulation;
  QuantScaling scaling_a, scaling_b;

  // In the order of the row-major product, whose first operand is cuBLASLt's second.
  std::string Codes() const {
    if (!codes) return "";
    return fmt::format(" {} {} * {} {} {}", Name(type_b), NameOfScales(scaling_b), Name(type_a),
                       NameOfScales(scaling_a), fast_accumulation ? "fast" : "split");
  }
  std::string ToString() const {
    return fmt::format(
        "{}{} {}x{}x{} ld {},{},{},{} {}->{}{}{} batch {}:{},{},{} align {},{},{},{}{}",
        transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, lda, ldb, ldc, ldd, Name(type_b),
        Name(result), bias ? " bias" : "", accumulate ? " accumulate" : "", batch, distance_a,
        distance_b, distance_d, align_a, align_b, align_c, align_d, Codes());
  }
  double flops() const {
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) *
           static_cast<double>(batch);
  }
};

// What names one of cuBLASLt's algorithms, as numbers that a file can hold: a pinned choice is
// built anew from them and checked by the library, never taken as opaque bytes.
struct AlgorithmConfig {
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

  static StatusOr<AlgorithmConfig> Of(const cublasLtMatmulAlgo_t& algorithm) {
    AlgorithmConfig config;
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
  static bool Parse(std::istream& in, AlgorithmConfig* config) {
    return static_cast<bool>(in >> config->id >> config->tile >> config->stages >>
                             config->split_k >> config->reduction >> config->swizzling >>
                             config->custom >> config->inner_shape >> config->cluster_shape);
  }
};

// cuBLASLt's descriptors of one problem.
class Plan {
 public:
  explicit Plan(const Problem& problem) : problem_(problem) {}
  ~Plan() {
    for (cublasLtMatrixLayout_t layout : {a_, b_, c_, d_})
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    if (operation_ != nullptr) cublasLtMatmulDescDestroy(operation_);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  Status Create() {
    const Problem& p = problem_;
    TE_RETURN_IF_LT_ERROR(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t a = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t b = p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_TRANSA, a));
    TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_TRANSB, b));
    if (p.bias) {
      TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS));
      TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, TypeOf(p.result)));
    }
    if (p.codes) {
      TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, ScaleModeOf(p.scaling_a)));
      TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, ScaleModeOf(p.scaling_b)));
      TE_RETURN_IF_ERROR(
          Set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<int8_t>(p.fast_accumulation ? 1 : 0)));
    }
    TE_RETURN_IF_ERROR(MakeLayout(&a_, p.type_a, p.transpose_a ? p.k : p.m,
                                  p.transpose_a ? p.m : p.k, p.lda, p.distance_a));
    TE_RETURN_IF_ERROR(MakeLayout(&b_, p.type_b, p.transpose_b ? p.n : p.k,
                                  p.transpose_b ? p.k : p.n, p.ldb, p.distance_b));
    TE_RETURN_IF_ERROR(MakeLayout(&c_, p.result, p.m, p.n, p.ldc, p.distance_d));
    return MakeLayout(&d_, p.result, p.m, p.n, p.ldd, p.distance_d);
  }

  // The addresses that the operation's description holds.
  Status Bind(const LtMatmulArgs& args) const {
    if (problem_.bias) {
      TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias.data()));
    }
    if (!problem_.codes) return OkStatus();
    TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, args.b_codes.scale_inv));
    return Set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, args.a_codes.scale_inv);
  }

  // cuBLASLt's candidates, its favourite first.
  StatusOr<std::vector<cublasLtMatmulAlgo_t>> Candidates(cublasLtHandle_t handle, int count) const {
    cublasLtMatmulPreference_t preference = nullptr;
    TE_RETURN_IF_LT_ERROR(cublasLtMatmulPreferenceCreate(&preference));
    const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>,
                          cublasStatus_t (*)(cublasLtMatmulPreference_t)>
        owner(preference, cublasLtMatmulPreferenceDestroy);
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      return ToStatus(
          cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
          "cublasLtMatmulPreferenceSetAttribute");
    };
    TE_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes}));
    TE_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, kReductions));
    TE_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, problem_.align_a));
    TE_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, problem_.align_b));
    TE_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, problem_.align_c));
    TE_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, problem_.align_d));
    std::vector<cublasLtMatmulHeuristicResult_t> results(count);
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle, operation_, a_, b_, c_, d_, preference, count, results.data(), &found);
    if (status != CUBLAS_STATUS_SUCCESS || found == 0) {
      return Unsupported("matmul {}: cuBLASLt has no algorithm ({})", problem_.ToString(),
                         cublasLtGetStatusString(status));
    }
    std::vector<cublasLtMatmulAlgo_t> out;
    for (int i = 0; i < found; ++i)
      if (results[i].state == CUBLAS_STATUS_SUCCESS) out.push_back(results[i].algo);
    return out;
  }

  Status Run(const Exec& exec, cublasLtHandle_t handle, const LtMatmulArgs& args, const void* c,
             void* d, const cublasLtMatmulAlgo_t& algorithm, void* workspace) const {
    TE_RETURN_IF_ERROR(Bind(args));
    return ToStatus(cublasLtMatmul(handle, operation_, &args.alpha, args.b.data(), a_,
                                   args.a.data(), b_, &args.beta, c, c_, d, d_, &algorithm,
                                   workspace, kWorkspaceBytes, cuda::StreamOf(exec)),
                    "cublasLtMatmul");
  }

  // The algorithm that `config` names, if the library still takes it for this problem.
  StatusOr<cublasLtMatmulAlgo_t> Rebuild(cublasLtHandle_t handle,
                                         const AlgorithmConfig& config) const {
    const cudaDataType_t type_a = TypeOf(problem_.type_a), type_b = TypeOf(problem_.type_b);
    const cudaDataType_t result = TypeOf(problem_.result);
    cublasLtMatmulAlgo_t algorithm{};
    TE_RETURN_IF_LT_ERROR(cublasLtMatmulAlgoInit(handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, type_a,
                                                 type_b, result, result, config.id, &algorithm));
    TE_RETURN_IF_ERROR(AlgorithmConfig::ForEach(
        config, [&algorithm](cublasLtMatmulAlgoConfigAttributes_t attribute, const auto& value) {
          return ToStatus(
              cublasLtMatmulAlgoConfigSetAttribute(&algorithm, attribute, &value, sizeof(value)),
              "cublasLtMatmulAlgoConfigSetAttribute");
        }));
    cublasLtMatmulHeuristicResult_t checked{};
    TE_RETURN_IF_LT_ERROR(
        cublasLtMatmulAlgoCheck(handle, operation_, a_, b_, c_, d_, &algorithm, &checked));
    if (checked.workspaceSize > kWorkspaceBytes || config.reduction > kReductions)
      return Unsupported("matmul {}: the pinned algorithm needs more than we give",
                         problem_.ToString());
    return algorithm;
  }

  Status Choose(const cublasLtMatmulAlgo_t& algorithm) {
    algorithm_ = algorithm;
    TE_ASSIGN_OR_RETURN(config_, AlgorithmConfig::Of(algorithm));
    name_ = fmt::format("cublasLt {} tile {} split {}{}", config_.id, config_.tile, config_.split_k,
                        problem_.Codes());
    return OkStatus();
  }
  const cublasLtMatmulAlgo_t& algorithm() const { return algorithm_; }
  const AlgorithmConfig& config() const { return config_; }
  const std::string& name() const { return name_; }

 private:
  template <typename T>
  Status Set(cublasLtMatmulDescAttributes_t attribute, const T& value) const {
    return ToStatus(cublasLtMatmulDescSetAttribute(operation_, attribute, &value, sizeof(value)),
                    "cublasLtMatmulDescSetAttribute");
  }
  Status MakeLayout(cublasLtMatrixLayout_t* layout, DType dtype, int64_t rows, int64_t columns,
                    int64_t leading, int64_t distance) const {
    TE_RETURN_IF_LT_ERROR(
        cublasLtMatrixLayoutCreate(layout, TypeOf(dtype), rows, columns, leading));
    if (problem_.batch == 1) return OkStatus();
    const int32_t batch = static_cast<int32_t>(problem_.batch);
    TE_RETURN_IF_LT_ERROR(cublasLtMatrixLayoutSetAttribute(
        *layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof(batch)));
    return ToStatus(
        cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                         &distance, sizeof(distance)),
        "cublasLtMatrixLayoutSetAttribute");
  }

  Problem problem_;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, c_ = nullptr, d_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_{};
  AlgorithmConfig config_;
  std::string name_;
};

class LtCache : public cuda::OperationCache {
 public:
  std::unordered_map<std::string, std::unique_ptr<Plan>> plans;
  std::unordered_map<std::string, AlgorithmConfig> pinned;
};

LtCache* CacheOf(cuda::CudaState* state) {
  if (state->gemm_cache == nullptr) state->gemm_cache = std::make_unique<LtCache>();
  return static_cast<LtCache*>(state->gemm_cache.get());
}

// Milliseconds of one run, the mean of `runs` after one that is not timed.
StatusOr<float> TimeOf(const Exec& exec, cublasLtHandle_t handle, const Plan& plan,
                       const LtMatmulArgs& args, void* d, const cublasLtMatmulAlgo_t& algorithm,
                       void* workspace, int runs) {
  const cuda::Event begin, end;
  TE_RETURN_IF_ERROR(plan.Run(exec, handle, args, d, d, algorithm, workspace));
  cudaEventRecord(begin.get(), cuda::StreamOf(exec));
  for (int i = 0; i < runs; ++i)
    TE_RETURN_IF_ERROR(plan.Run(exec, handle, args, d, d, algorithm, workspace));
  cudaEventRecord(end.get(), cuda::StreamOf(exec));
  TE_RETURN_IF_ERROR(cuda::ToStatus(cudaEventSynchronize(end.get()), "timing a matmul"));
  float ms = 0;
  cudaEventElapsedTime(&ms, begin.get(), end.get());
  return ms / static_cast<float>(runs);
}

Status ChooseAlgorithm(const Exec& exec, cuda::CudaState* state, const Problem& problem,
                       const LtMatmulArgs& args, void* workspace, Plan* plan) {
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  TE_RETURN_IF_ERROR(cuda::ToStatus(cudaStreamIsCapturing(cuda::StreamOf(exec), &capturing),
                                    "cudaStreamIsCapturing"));
  const bool timed = problem.flops() >= kMinTunedFlops && capturing == cudaStreamCaptureStatusNone;
  TE_ASSIGN_OR_RETURN(const auto candidates,
                      plan->Candidates(state->cublas_lt(), timed ? kMaxCandidates : 1));
  if (!timed || candidates.size() == 1) {
    return plan->Choose(candidates.front());
  }
  // Products accumulate: the trial runs write a d of their own.
  const ArenaScope scope(exec.scratch);
  const int64_t extent = (problem.batch - 1) * problem.distance_d + problem.n * problem.ldd;
  TE_ASSIGN_OR_RETURN(const TensorView trial, exec.scratch->Allocate(problem.result, {extent}));
  TE_RETURN_IF_ERROR(cuda::ToStatus(
      cudaMemsetAsync(trial.data(), 0, trial.bytes(), cuda::StreamOf(exec)), "cudaMemsetAsync"));
  struct Timed {
    const cublasLtMatmulAlgo_t* algorithm;
    float ms;
  };
  std::vector<Timed> timed_candidates;
  Status last;
  for (const cublasLtMatmulAlgo_t& candidate : candidates) {
    const StatusOr<float> ms =
        TimeOf(exec, state->cublas_lt(), *plan, args, trial.data(), candidate, workspace, 2);
    if (ms.ok()) {
      timed_candidates.push_back({&candidate, *ms});
    } else {
      last = ms.status();  // some candidates fail only when they run
    }
  }
  if (timed_candidates.empty()) return last;
  std::stable_sort(timed_candidates.begin(), timed_candidates.end(),
                   [](const Timed& a, const Timed& b) { return a.ms < b.ms; });
  if (timed_candidates.size() > kFinalists) timed_candidates.resize(kFinalists);
  // In turns, so that a clock that drifts favours none; the best turn of each counts.
  for (Timed& t : timed_candidates) t.ms = std::numeric_limits<float>::infinity();
  const int runs = std::clamp(static_cast<int>(2e12 / problem.flops()), 3, 20);
  for (int turn = 0; turn < 5; ++turn) {
    for (Timed& t : timed_candidates) {
      TE_ASSIGN_OR_RETURN(const float ms, TimeOf(exec, state->cublas_lt(), *plan, args,
                                                 trial.data(), *t.algorithm, workspace, runs));
      t.ms = std::min(t.ms, ms);
    }
  }
  const cublasLtMatmulAlgo_t* best =
      std::min_element(timed_candidates.begin(), timed_candidates.end(),
                       [](const Timed& a, const Timed& b) { return a.ms < b.ms; })
          ->algorithm;
  return plan->Choose(*best);
}

StatusOr<Problem> ProblemOf(const LtMatmulArgs& args, const ConstTensorView& c) {
  TE_ASSIGN_OR_RETURN(const Layout a, LayoutOf(args.a, "a"));
  TE_ASSIGN_OR_RETURN(const Layout b, LayoutOf(args.b, "b"));
  Problem p;
  // In column-major terms d^T = b^T a^T: b is cuBLASLt's first operand.
  p.m = args.d.dim(1);
  p.n = args.d.dim(0);
  p.k = args.a.dim(1);
  p.transpose_a = !b.rows_contiguous;
  p.transpose_b = !a.rows_contiguous;
  p.lda = b.leading;
  p.ldb = a.leading;
  p.ldc = std::max(p.n == 1 ? p.m : c.stride(0), p.m);
  p.ldd = std::max(p.n == 1 ? p.m : args.d.stride(0), p.m);
  p.type_a = OperandType(args.b, args.b_codes);
  p.type_b = OperandType(args.a, args.a_codes);
  p.result = args.d.dtype();
  p.bias = args.bias.defined();
  p.accumulate = args.beta != 0;
  p.batch = args.batch;
  p.distance_a = args.b_distance;
  p.distance_b = args.a_distance;
  p.distance_d = args.d_distance;
  p.align_a = AlignmentOf(args.b.data(), args.batch, args.b_distance, p.type_a);
  p.align_b = AlignmentOf(args.a.data(), args.batch, args.a_distance, p.type_b);
  p.align_c = AlignmentOf(c.data(), args.batch, args.d_distance, p.result);
  p.align_d = AlignmentOf(args.d.data(), args.batch, args.d_distance, p.result);
  p.codes = args.a_codes.format != QuantFormat::kNone;
  p.fast_accumulation = args.fast_accumulation;
  p.scaling_a = args.b_codes.scaling;
  p.scaling_b = args.a_codes.scaling;
  return p;
}

// What a file of choices is valid for.
StatusOr<std::string> HeaderOf() {
  int device = 0, driver = 0;
  cudaDeviceProp properties;
  TE_RETURN_IF_ERROR(cuda::ToStatus(cudaGetDevice(&device), "cudaGetDevice"));
  TE_RETURN_IF_ERROR(
      cuda::ToStatus(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
  TE_RETURN_IF_ERROR(cuda::ToStatus(cudaDriverGetVersion(&driver), "cudaDriverGetVersion"));
  return fmt::format("te cublasLt choices 1 | {} | driver {} | cublasLt {}", properties.name,
                     driver, cublasLtGetVersion());
}

}  // namespace

Status RunLtMatmul(const Exec& exec, const LtMatmulArgs& args, const char* operation,
                   const char* orientation) {
  TE_ASSIGN_OR_RETURN(cuda::CudaState * state, cuda::GetCudaState(exec));
  const ConstTensorView c = args.beta != 0 && args.c.defined() ? args.c : ConstTensorView(args.d);
  TE_ASSIGN_OR_RETURN(const Problem problem, ProblemOf(args, c));
  LtCache* cache = CacheOf(state);
  const std::string key = problem.ToString();
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(void* workspace, exec.scratch->Allocate(kWorkspaceBytes));
  std::unique_ptr<Plan>& slot = cache->plans[key];
  if (slot == nullptr) {
    auto plan = std::make_unique<Plan>(problem);
    TE_RETURN_IF_ERROR(plan->Create());
    TE_RETURN_IF_ERROR(plan->Bind(args));
    const auto pinned = cache->pinned.find(key);
    StatusOr<cublasLtMatmulAlgo_t> algorithm =
        pinned == cache->pinned.end() ? Status(StatusCode::kNotFound, "")
                                      : plan->Rebuild(state->cublas_lt(), pinned->second);
    // A choice that the library refuses is as good as none.
    TE_RETURN_IF_ERROR(algorithm.ok()
                           ? plan->Choose(*algorithm)
                           : ChooseAlgorithm(exec, state, problem, args, workspace, plan.get()));
    slot = std::move(plan);
  }
  TE_RETURN_IF_ERROR(slot->Run(exec, state->cublas_lt(), args, c.data(), args.d.data(),
                               slot->algorithm(), workspace));
  if (exec.log != nullptr) {
    const int64_t operand_bytes = args.batch * (problem.m + problem.n) * problem.k *
                                  static_cast<int64_t>(SizeOf(problem.type_a));
    const int64_t result_bytes = args.batch * problem.m * problem.n *
                                 static_cast<int64_t>(SizeOf(problem.result)) *
                                 (problem.accumulate ? 2 : 1);
    Record(exec, operation, slot->name().c_str(), problem.type_b, operand_bytes + result_bytes,
           orientation);
  }
  return OkStatus();
}

StatusOr<std::string> SaveLtChoices(cuda::CudaState* state) {
  TE_ASSIGN_OR_RETURN(std::string text, HeaderOf());
  text += '\n';
  const LtCache* cache = CacheOf(state);
  for (const auto& [key, plan] : cache->plans)
    if (plan != nullptr) text += fmt::format("{} : {}\n", key, plan->config().ToString());
  for (const auto& [key, config] : cache->pinned)
    if (!cache->plans.contains(key)) text += fmt::format("{} : {}\n", key, config.ToString());
  return text;
}

StatusOr<bool> LoadLtChoices(cuda::CudaState* state, const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  TE_ASSIGN_OR_RETURN(const std::string header, HeaderOf());
  if (!std::getline(lines, line) || line != header) return false;
  std::unordered_map<std::string, AlgorithmConfig> pinned;
  for (int number = 2; std::getline(lines, line); ++number) {
    const size_t colon = line.rfind(" : ");
    AlgorithmConfig config;
    std::istringstream numbers(colon == std::string::npos ? "" : line.substr(colon + 3));
    if (!AlgorithmConfig::Parse(numbers, &config) || !(numbers >> std::ws).eof()) {
      return CorruptData("cublasLt choices, line {}: '{}'; expected 'SHAPE : ' and nine numbers",
                         number, line);
    }
    pinned[line.substr(0, colon)] = config;
  }
  CacheOf(state)->pinned = std::move(pinned);
  return true;
}

}  // namespace te
