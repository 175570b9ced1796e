#include "te_kernels/batched_gemm/batched_gemm.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#ifndef TE_TEST_CUDA
#include "te_kernels/gemm/onednn_exec.h"
#endif

namespace te {
namespace {

using test::HostTensor;
using Doubles = std::vector<double>;

// The products, and beside them the sums of magnitudes that the error bound needs.
void Reference(const ConstTensorView& a, const ConstTensorView& b, double alpha, Doubles* d,
               Doubles* magnitude) {
  const Doubles x = test::ToDoubles(a), y = test::ToDoubles(b);
  const int64_t batches = a.dim(0) * a.dim(1), m = a.dim(2), k = a.dim(3), n = b.dim(3);
  for (int64_t i = 0; i < batches; ++i) {
    for (int64_t r = 0; r < m; ++r) {
      for (int64_t c = 0; c < n; ++c) {
        double sum = 0, size = 0;
        for (int64_t p = 0; p < k; ++p) {
          const double term = alpha * x[(i * m + r) * k + p] * y[(i * k + p) * n + c];
          sum += term;
          size += std::abs(term);
        }
        d->push_back(sum);
        magnitude->push_back(size);
      }
    }
  }
}

void Check(const Exec& exec, const ConstTensorView& a, const ConstTensorView& b, DType d_dtype,
           float beta) {
  const Shape shape = {a.dim(0), a.dim(1), a.dim(2), b.dim(3)};
  HostTensor d = HostTensor::Normal(d_dtype, shape, 9, 1, 2);
  Doubles want, magnitude, before = d.ToDoubles();
  Reference(a, b, 0.25, &want, &magnitude);
  for (size_t i = 0; i < want.size(); ++i) {
    want[i] += beta * before[i];
    magnitude[i] += std::abs(beta * before[i]);
  }
  ASSERT_TRUE(
      test::IsOk(TE_OP(BatchedGemm)(exec, {.a = a, .b = b, .d = d, .alpha = 0.25f, .beta = beta})));
  // K + 2 float32 operations (Higham 2002, section 3.1) and the store's rounding.
  const double factor = static_cast<double>(a.dim(3) + 3) * test::UnitRoundoff(DType::kFloat32) +
                        1.01 * test::UnitRoundoff(d_dtype);
  Doubles tolerance;
  for (double v : magnitude) tolerance.push_back(factor * v);
  EXPECT_TRUE(test::Near(d.ToDoubles(), want, tolerance));
  EXPECT_TRUE(d.GuardsIntact());
  if (want.size() > 1) {
    EXPECT_FALSE(
        test::Near(d.ToDoubles(), test::Disturbed(want, 1, 0.5 + 2 * tolerance[1]), tolerance));
  }
}

TEST(BatchedGemm, AgreesWithTheSumInDouble) {
  for (bool native : {true, false}) {
    test::TestLibraryExec exec(2, native);
    for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      for (const auto& [m, n, k] :
           {std::array<int64_t, 3>{1, 1, 1}, {5, 3, 7}, {16, 33, 24}, {4, 5, 0}, {0, 3, 2}}) {
        const HostTensor a = HostTensor::Normal(dtype, {2, 3, m, k}, 1, 1, 1),
                         b = HostTensor::Normal(dtype, {2, 3, k, n}, 2);
        const HostTensor bt = HostTensor::Normal(dtype, {2, 3, n, k}, 3),
                         at = HostTensor::Normal(dtype, {2, 3, k, m}, 4);
        for (float beta : {0.0f, 1.0f}) {
          Check(exec, a, b, dtype, beta);
          Check(exec, a, b, DType::kFloat32, beta);
          Check(exec, a, ConstTensorView(bt).Transpose(2, 3), dtype, beta);  // q k^T
          Check(exec, ConstTensorView(at).Transpose(2, 3), b, dtype, beta);  // p^T dout
        }
      }
    }
  }
}

// Heads as the batch of a [B, S, n, d] tensor, and a group's key broadcast over its heads.
TEST(BatchedGemm, TakesHeadsAndBroadcastsByStride) {
  test::TestLibraryExec exec(2);
  const HostTensor q = HostTensor::Normal(DType::kBFloat16, {2, 5, 3, 8}, 1);
  const HostTensor k = HostTensor::Normal(DType::kBFloat16, {2, 7, 1, 8}, 2);
  const ConstTensorView heads = ConstTensorView(q).Transpose(1, 2);
  ConstTensorView keys = ConstTensorView(k).Transpose(1, 2).Transpose(2, 3);
  std::array<int64_t, kMaxRank> strides = keys.strides();
  strides[1] = 0;
  keys = ConstTensorView(keys.data(), keys.dtype(), {2, 3, 8, 7}, strides);
  Check(exec, heads, keys, DType::kFloat32, 0);
}

TEST(BatchedGemm, BadArgumentsAreNamed) {
  test::TestLibraryExec exec;
  const HostTensor a(DType::kFloat32, {1, 1, 2, 3}), b(DType::kFloat32, {1, 1, 4, 2}),
      d(DType::kFloat32, {1, 1, 2, 2});
  EXPECT_TRUE(test::FailsWith(TE_OP(BatchedGemm)(exec, {.a = a, .b = b, .d = d}),
                              StatusCode::kInvalidArgument, "a is float32 [1, 1, 2, 3]"));
  const HostTensor flat(DType::kFloat32, {2, 3});
  EXPECT_TRUE(test::FailsWith(TE_OP(BatchedGemm)(exec, {.a = flat, .b = b, .d = d}),
                              StatusCode::kInvalidArgument, "expected rank 4"));
}

}  // namespace
}  // namespace te
