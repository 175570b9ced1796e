#include <cstring>

#include "te_kernels/base/parallel.h"
#include "te_kernels/cast/in_float.h"
#include "te_kernels/gemm/amx_matmul.h"
#include "te_kernels/gemm/gemm_quantized.h"
#include "te_kernels/gemm/onednn_state.h"

namespace te {
namespace {

void CopyRows(const Exec& exec, ConstTensorView from, TensorView to) {
  const size_t bytes = static_cast<size_t>(to.dim(1)) * SizeOf(to.dtype());
  ParallelFor(exec, to.dim(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(to.Select(0, i).data(), from.Select(0, i).data(), bytes);
  });
}

// Without terms to sum (K == 0), d is c or 0, plus the bias.
template <typename T>
void EmptySum(const GemmArgs& args, bool add_d) {
  for (int64_t i = 0; i < args.d.dim(0); ++i) {
    T* row = args.d.Select(0, i).as<T>();
    for (int64_t j = 0; j < args.d.dim(1); ++j) {
      float value = add_d ? static_cast<float>(row[j]) : 0.0f;
      if (args.bias.defined()) value += static_cast<float>(args.bias.as<T>()[j]);
      row[j] = T(value);
    }
  }
}

// The operands as oneDNN sees them: d = a b.
void Orient(const GemmArgs& args, MatmulSpec* spec) {
  spec->a = args.a.dense;
  spec->b = args.b.dense;
  if (args.kind == GemmKind::kFprop) spec->b = spec->b.Transpose(0, 1);
  if (args.kind == GemmKind::kWgrad) spec->a = spec->a.Transpose(0, 1);
}

// fprop's b = w^T is read by rows, as oneDNN likes it. Of dgrad's and wgrad's b it makes blocks on
// the way, again and again for the rows of a: packing b once gains up to 30% in float32 (lm_head's
// dgrad) and 10 to 30% in bfloat16, where it loses 15 to 20% once the sum is long (measured at 4096
// terms and above, oneDNN 2.6 on AMX).
bool PackingPays(const GemmArgs& args, const MatmulSpec& spec) {
  constexpr int64_t kMinRows = 256;
  constexpr int64_t kMaxTermsBf16 = 3072;
  constexpr int64_t kMaxBytes = int64_t{256} << 20;  // of scratch
  return args.kind != GemmKind::kFprop && spec.a.dim(0) >= kMinRows &&
         spec.b.elements() * static_cast<int64_t>(SizeOf(spec.b.dtype())) <= kMaxBytes &&
         (spec.b.dtype() == DType::kFloat32 || spec.a.dim(1) <= kMaxTermsBf16);
}

// For machines without bfloat16 instructions: the same product with float32 copies, rounded once at
// the end.
Status GemmThroughFloat(const Exec& exec, const GemmArgs& args) {
  ArenaScope scope(exec.scratch);
  GemmArgs in_float = args;
  TE_ASSIGN_OR_RETURN(const TensorView a, InFloat(exec, args.a.dense));
  TE_ASSIGN_OR_RETURN(const TensorView b, InFloat(exec, args.b.dense));
  in_float.a = a;
  in_float.b = b;
  if (args.d.dtype() == DType::kFloat32) return GemmCpu(exec, in_float);
  if (args.bias.defined()) {
    TE_ASSIGN_OR_RETURN(in_float.bias, InFloat(exec, args.bias));
  }
  TE_ASSIGN_OR_RETURN(in_float.d, exec.scratch->Allocate(DType::kFloat32, args.d.shape()));
  if (args.beta != 0) {
    TE_ASSIGN_OR_RETURN(in_float.c,
                        InFloat(exec, args.c.defined() ? args.c : ConstTensorView(args.d)));
  }
  TE_RETURN_IF_ERROR(GemmCpu(exec, in_float));
  return CastCpu(exec, {.x = in_float.d, .y = args.d});
}

// A bfloat16 product over a very long sum is cut, and its parts meet in float32: oneDNN's runs at
// half its rate (330 against 620 to 700 GFLOP/s for lm_head's dgrad over 32000 terms, oneDNN 2.6),
// ours loses its panels from the L2 cache.
int64_t MaxTerms(const GemmArgs& args, const MatmulSpec& spec) {
  constexpr int64_t kOnednnTerms = 16384;
  if (RunsOnAmx(spec)) return kAmxTerms;
  return args.kind == GemmKind::kFprop ? spec.a.dim(1) : kOnednnTerms;
}

Status GemmInParts(const Exec& exec, const GemmArgs& args, int64_t terms, int64_t max_terms) {
  ArenaScope scope(exec.scratch);
  GemmArgs part = args;
  if (args.d.dtype() == DType::kBFloat16) {
    if (args.beta != 0) {
      TE_ASSIGN_OR_RETURN(part.d,
                          InFloat(exec, args.c.defined() ? args.c : ConstTensorView(args.d)));
    } else {
      TE_ASSIGN_OR_RETURN(part.d, exec.scratch->Allocate(DType::kFloat32, args.d.shape()));
    }
    part.c = ConstTensorView();
    if (args.bias.defined()) {
      TE_ASSIGN_OR_RETURN(part.bias, InFloat(exec, args.bias));
    }
  }
  // fprop sums over the columns of x and w, dgrad over the columns of dy and the rows of w, wgrad
  // over the rows of dy and x.
  const int a_axis = args.kind == GemmKind::kWgrad ? 0 : 1;
  const int b_axis = args.kind == GemmKind::kFprop ? 1 : 0;
  const int64_t parts = (terms + max_terms - 1) / max_terms;
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t begin = terms * i / parts, end = terms * (i + 1) / parts;
    part.a = args.a.dense.Slice(a_axis, begin, end);
    part.b = args.b.dense.Slice(b_axis, begin, end);
    TE_RETURN_IF_ERROR(GemmCpu(exec, part));
    part.beta = 1;
    part.c = ConstTensorView();
    part.bias = ConstTensorView();
  }
  if (args.d.dtype() == DType::kFloat32) return OkStatus();
  return CastCpu(exec, {.x = part.d, .y = args.d});
}

}  // namespace

Status GemmCpu(const Exec& exec, const GemmArgs& args) {
  TE_RETURN_IF_ERROR(ValidateGemm(args));
  if (args.d.elements() == 0) return OkStatus();
  if (args.a.quantized()) return GemmQuantizedCpu(exec, args);
  MatmulSpec spec;
  Orient(args, &spec);
  const int64_t terms = spec.a.dim(1);
  if (terms != 0 && spec.a.dtype() == DType::kBFloat16) {
    TE_ASSIGN_OR_RETURN(const OnednnState* state, GetOnednnState(exec));
    if (!state->native_bf16()) return GemmThroughFloat(exec, args);
    spec.d = args.d;
    const int64_t max_terms = MaxTerms(args, spec);
    if (terms > max_terms) return GemmInParts(exec, args, terms, max_terms);
  }
  if (args.beta != 0 && args.c.defined() && args.c.data() != args.d.data())
    CopyRows(exec, args.c, args.d);
  if (terms == 0) {
    args.d.dtype() == DType::kFloat32 ? EmptySum<float>(args, args.beta != 0)
                                      : EmptySum<bfloat16>(args, args.beta != 0);
    return OkStatus();
  }
  spec.d = args.d;
  spec.bias = args.bias;
  spec.accumulate = args.beta != 0;
  spec.pack_b = PackingPays(args, spec);
  return RunMatmul(exec, spec, args.a.dense.data(), args.b.dense.data(), args.bias.data(),
                   args.d.data());
}

}  // namespace te
