#include <algorithm>
#include <cmath>
#include <limits>

#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/cross_entropy/cross_entropy.h"

namespace te {
namespace {

Status CheckLabels(const CrossEntropyArgs& args) {
  const int32_t* labels = args.labels.as<int32_t>();
  for (int64_t t = 0; t < args.logits.dim(0); ++t) {
    const int32_t label = labels[t * args.labels.stride(0)];
    if (label != args.ignore_index && (label < 0 || label >= args.logits.dim(1))) {
      return InvalidArgument(
          "cross_entropy: labels[{}] is {}; expected {} (not counted) or a class in [0, {})", t,
          label, args.ignore_index, args.logits.dim(1));
    }
  }
  return OkStatus();
}

// One row: the passes over it hit the cache (a row of 128256 classes is 256 KiB).
template <typename T>
float Row(const CrossEntropyArgs& args, const T* x, int32_t label, T* dx) {
  const int64_t classes = args.logits.dim(1);
  if (label == args.ignore_index) {
    if (dx != nullptr) std::fill_n(dx, classes, T(0.0f));
    return 0;
  }
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  simd::Floats most = simd::Broadcast(0.0f) + kNone;
  simd::Floats sums = {};
  simd::ForEachVector(
      classes, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
        simd::Floats v = simd::Load(x + j, n);
        sums += v;
        v = simd::FirstLanes(v, n, kNone);
        most = v > most ? v : most;
      });
  // A NaN anywhere in the row makes the sum NaN; the maximum may miss it.
  const float largest = simd::Max(most);
  const float mean = simd::Sum(sums) / static_cast<float>(classes);
  simd::Floats exps = {};
  simd::ForEachVector(
      classes, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
        simd::Floats e = simd::Exp(simd::Load(x + j, n) - largest);
        e = simd::FirstLanes(e, n, 0.0f);
        exps += e;
      });
  // Relative to the largest logit, as far as it goes: log-sum-exp as a float would lose what a
  // large one leaves of the sum.
  const float sum = simd::Sum(exps), inverse = 1 / sum;
  const float smoothing = args.label_smoothing;
  const float target = LoadFloat(x + label);
  const float loss = smoothing == 0
                         ? largest - target + std::log(sum)
                         : largest + std::log(sum) - (1 - smoothing) * target - smoothing * mean;
  if (dx == nullptr) return loss;
  const float uniform = smoothing / static_cast<float>(classes);
  simd::ForEachVector(
      classes, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
        simd::Store(simd::Exp(simd::Load(x + j, n) - largest) * inverse - uniform, dx + j, n);
      });
  // The label's gradient from its logit, unrounded until here (dx may have overwritten x).
  StoreRounded(std::exp(target - largest) * inverse - uniform - (1 - smoothing), dx + label);
  return loss;
}

template <typename T>
void Rows(const Exec& exec, const CrossEntropyArgs& args) {
  ParallelFor(exec, args.logits.dim(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const T* x = args.logits.as<T>() + t * args.logits.stride(0);
      T* dx = args.dlogits.defined() ? args.dlogits.as<T>() + t * args.dlogits.stride(0) : nullptr;
      const int32_t label = args.labels.as<int32_t>()[t * args.labels.stride(0)];
      args.loss.as<float>()[t * args.loss.stride(0)] = Row(args, x, label, dx);
    }
  });
}

}  // namespace

Status CrossEntropyCpu(const Exec& exec, const CrossEntropyArgs& args) {
  TE_RETURN_IF_ERROR(ValidateCrossEntropy(args));
  TE_RETURN_IF_ERROR(CheckLabels(args));
  args.logits.dtype() == DType::kFloat32 ? Rows<float>(exec, args) : Rows<bfloat16>(exec, args);
  return OkStatus();
}

}  // namespace te
