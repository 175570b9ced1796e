#include "te_kernels/gemm/cublaslt_plan.h"

#include <algorithm>
#include <memory>
#include <type_traits>

#include "te_kernels/cuda/cuda_state.h"

namespace te {
namespace {

// Split sums meet in float32 in the workspace, in a fixed order: no atomics into d, no partial sums
// rounded to its dtype.
constexpr uint32_t kReductions =
    CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;

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

}  // namespace

Status ToStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return OkStatus();
  return Internal("{}: {}", what, cublasLtGetStatusString(status));
}

StatusOr<LtProblem> LtProblem::Of(const LtMatmulArgs& args, const ConstTensorView& c) {
  TE_ASSIGN_OR_RETURN(const Layout a, LayoutOf(args.a, "a"));
  TE_ASSIGN_OR_RETURN(const Layout b, LayoutOf(args.b, "b"));
  LtProblem p;
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

std::string LtProblem::Codes() const {
  if (!codes) return "";
  return fmt::format(" {} {} * {} {} {}", Name(type_b), NameOfScales(scaling_b), Name(type_a),
                     NameOfScales(scaling_a), fast_accumulation ? "fast" : "split");
}

std::string LtProblem::ToString() const {
  return fmt::format(
      "{}{} {}x{}x{} ld {},{},{},{} {}->{}{}{} batch {}:{},{},{} align {},{},{},{}{}",
      transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, lda, ldb, ldc, ldd, Name(type_b),
      Name(result), bias ? " bias" : "", accumulate ? " accumulate" : "", batch, distance_a,
      distance_b, distance_d, align_a, align_b, align_c, align_d, Codes());
}

double LtProblem::flops() const {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) *
         static_cast<double>(batch);
}

LtPlan::~LtPlan() {
  for (cublasLtMatrixLayout_t layout : {a_, b_, c_, d_})
    if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
  if (operation_ != nullptr) cublasLtMatmulDescDestroy(operation_);
}

Status LtPlan::Create() {
  const LtProblem& p = problem_;
  TE_RETURN_IF_LT_ERROR(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t a = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t b = p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_TRANSA, a));
  TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_TRANSB, b));
  if (sms_ != 0) {
    TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, static_cast<int32_t>(sms_)));
  }
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
  TE_RETURN_IF_ERROR(MakeLayout(&a_, p.type_a, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k,
                                p.lda, p.distance_a));
  TE_RETURN_IF_ERROR(MakeLayout(&b_, p.type_b, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n,
                                p.ldb, p.distance_b));
  TE_RETURN_IF_ERROR(MakeLayout(&c_, p.result, p.m, p.n, p.ldc, p.distance_d));
  return MakeLayout(&d_, p.result, p.m, p.n, p.ldd, p.distance_d);
}

Status LtPlan::Bind(const LtMatmulArgs& args) const {
  if (problem_.bias) {
    TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias.data()));
  }
  if (!problem_.codes) return OkStatus();
  TE_RETURN_IF_ERROR(Set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, args.b_codes.scale_inv));
  return Set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, args.a_codes.scale_inv);
}

StatusOr<std::vector<LtCandidate>> LtPlan::Candidates(cublasLtHandle_t handle, int count) const {
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
  TE_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kLtWorkspaceBytes}));
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
  std::vector<LtCandidate> out;
  for (int i = 0; i < found; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS)
      out.push_back({.algorithm = results[i].algo, .workspace_bytes = results[i].workspaceSize});
  }
  return out;
}

Status LtPlan::Run(const Exec& exec, cublasLtHandle_t handle, const LtMatmulArgs& args,
                   const void* c, void* d, const LtCandidate& candidate, void* workspace,
                   size_t workspace_bytes) const {
  TE_RETURN_IF_ERROR(Bind(args));
  return ToStatus(cublasLtMatmul(handle, operation_, &args.alpha, args.b.data(), a_, args.a.data(),
                                 b_, &args.beta, c, c_, d, d_, &candidate.algorithm, workspace,
                                 workspace_bytes, cuda::StreamOf(exec)),
                  "cublasLtMatmul");
}

StatusOr<LtCandidate> LtPlan::Rebuild(cublasLtHandle_t handle, const LtAlgorithm& config) const {
  const cudaDataType_t type_a = TypeOf(problem_.type_a), type_b = TypeOf(problem_.type_b);
  const cudaDataType_t result = TypeOf(problem_.result);
  cublasLtMatmulAlgo_t algorithm{};
  TE_RETURN_IF_LT_ERROR(cublasLtMatmulAlgoInit(handle, CUBLAS_COMPUTE_32F, CUDA_R_32F, type_a,
                                               type_b, result, result, config.id, &algorithm));
  TE_RETURN_IF_ERROR(LtAlgorithm::ForEach(
      config, [&algorithm](cublasLtMatmulAlgoConfigAttributes_t attribute, const auto& value) {
        return ToStatus(
            cublasLtMatmulAlgoConfigSetAttribute(&algorithm, attribute, &value, sizeof(value)),
            "cublasLtMatmulAlgoConfigSetAttribute");
      }));
  cublasLtMatmulHeuristicResult_t checked{};
  TE_RETURN_IF_LT_ERROR(
      cublasLtMatmulAlgoCheck(handle, operation_, a_, b_, c_, d_, &algorithm, &checked));
  if (checked.workspaceSize > kLtWorkspaceBytes || config.reduction > kReductions)
    return Unsupported("matmul {}: the pinned algorithm needs more than we give",
                       problem_.ToString());
  return LtCandidate{.algorithm = algorithm, .workspace_bytes = checked.workspaceSize};
}

Status LtPlan::Choose(const LtCandidate& candidate) {
  chosen_ = candidate;
  TE_ASSIGN_OR_RETURN(config_, LtAlgorithm::Of(candidate.algorithm));
  name_ = fmt::format("cublasLt {} tile {} split {}{}{}", config_.id, config_.tile, config_.split_k,
                      problem_.Codes(), sms_ == 0 ? "" : fmt::format(" on {} SMs", sms_));
  return OkStatus();
}

Status LtPlan::MakeLayout(cublasLtMatrixLayout_t* layout, DType dtype, int64_t rows,
                          int64_t columns, int64_t leading, int64_t distance) const {
  TE_RETURN_IF_LT_ERROR(cublasLtMatrixLayoutCreate(layout, TypeOf(dtype), rows, columns, leading));
  if (problem_.batch == 1) return OkStatus();
  const int32_t batch = static_cast<int32_t>(problem_.batch);
  TE_RETURN_IF_LT_ERROR(cublasLtMatrixLayoutSetAttribute(
      *layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof(batch)));
  return ToStatus(
      cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                       &distance, sizeof(distance)),
      "cublasLtMatrixLayoutSetAttribute");
}

}  // namespace te
