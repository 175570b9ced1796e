#include "te_kernels/base/view.h"

#include <atomic>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/base/parallel.h"
#include "te_kernels/base/status.h"

namespace te {
namespace {

class ViewTest : public testing::Test {
 protected:
  ViewTest() : data_(2 * 3 * 4), view_(data_.data(), DType::kFloat32, {2, 3, 4}) {
    std::iota(data_.begin(), data_.end(), 0.0f);
  }
  // Element (i, j, ...) through strides.
  static float At(const ConstTensorView& view, const std::vector<int64_t>& index) {
    int64_t offset = 0;
    for (int i = 0; i < view.rank(); ++i) offset += index[i] * view.stride(i);
    return view.as<float>()[offset];
  }

  std::vector<float> data_;
  TensorView view_;
};

TEST_F(ViewTest, DenseStridesAreRowMajor) {
  EXPECT_EQ(view_.stride(0), 12);
  EXPECT_EQ(view_.stride(1), 4);
  EXPECT_EQ(view_.stride(2), 1);
  EXPECT_EQ(view_.elements(), 24);
  EXPECT_EQ(view_.bytes(), 96u);
  EXPECT_TRUE(view_.IsDense());
  EXPECT_EQ(At(view_, {1, 2, 3}), 23);
}

TEST_F(ViewTest, SliceSelectAndTransposeSeeTheSameMemory) {
  const TensorView slice = view_.Slice(1, 1, 3);
  EXPECT_EQ(slice.shape(), (Shape{2, 2, 4}));
  EXPECT_FALSE(slice.IsDense());
  EXPECT_EQ(At(slice, {1, 0, 2}), At(view_, {1, 1, 2}));
  const TensorView select = view_.Select(1, 2);
  EXPECT_EQ(select.shape(), (Shape{2, 4}));
  EXPECT_EQ(At(select, {1, 3}), At(view_, {1, 2, 3}));
  const TensorView transposed = view_.Transpose(0, 2);
  EXPECT_EQ(transposed.shape(), (Shape{4, 3, 2}));
  EXPECT_EQ(At(transposed, {3, 2, 1}), At(view_, {1, 2, 3}));
  slice.as<float>()[0] = -1;
  EXPECT_EQ(At(view_, {0, 1, 0}), -1);
}

TEST_F(ViewTest, SplitWorksOnStridedViews) {
  const TensorView split = view_.Slice(1, 0, 2).Split(2, 2, 2);
  EXPECT_EQ(split.shape(), (Shape{2, 2, 2, 2}));
  EXPECT_EQ(At(split, {1, 1, 1, 0}), At(view_, {1, 1, 2}));
}

TEST_F(ViewTest, ReshapeKeepsTheOrder) {
  const TensorView flat = view_.Reshape({4, 6});
  EXPECT_EQ(At(flat, {3, 5}), 23);
  EXPECT_EQ(flat.data(), view_.data());
}

TEST_F(ViewTest, DimensionsOfOneDoNotSpoilDensity) {
  EXPECT_TRUE(view_.Slice(0, 1, 2).IsDense());
  EXPECT_FALSE(view_.Slice(2, 1, 2).IsDense());
  EXPECT_TRUE(TensorView(data_.data(), DType::kFloat32, {1, 4}, {99, 1}).IsDense());
  EXPECT_FALSE(TensorView(data_.data(), DType::kFloat32, {2, 4}, {99, 1}).IsDense());
}

TEST_F(ViewTest, TextNamesDtypeShapeAndStrides) {
  EXPECT_EQ(view_.ToString(), "float32 [2, 3, 4]");
  EXPECT_EQ(view_.Transpose(0, 1).ToString(), "float32 [3, 2, 4] strides [4, 12, 1]");
  EXPECT_EQ(TensorView().ToString(), "nothing");
  EXPECT_EQ(Shape().ToString(), "[]");
}

TEST(ShapeTest, EqualityLooksAtRankAndDimensions) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2}), (Shape{2, 1}));
  EXPECT_EQ(Shape().elements(), 1);
  EXPECT_EQ((Shape{2, 0}).elements(), 0);
}

TEST(StatusTest, CarriesCodeAndMessageWithContext) {
  const Status status = InvalidArgument("x is {}", 3);
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.WithContext("layer 0").message(), "layer 0: x is 3");
  EXPECT_EQ(status.WithContext("layer 0").code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(OkStatus().WithContext("layer 0").ok());
}

TEST(StatusTest, MacrosReturnTheFirstFailure) {
  const auto half = [](int x) -> StatusOr<int> {
    if (x % 2 != 0) return InvalidArgument("{} is odd", x);
    return x / 2;
  };
  const auto quarter = [&](int x) -> StatusOr<int> {
    TE_ASSIGN_OR_RETURN(const int h, half(x));
    return half(h);
  };
  const auto check = [&](int x) -> Status {
    TE_RETURN_IF_ERROR(quarter(x).status());
    return OkStatus();
  };
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(6).status().message(), "3 is odd");
  EXPECT_EQ(check(7).message(), "7 is odd");
  EXPECT_TRUE(check(4).ok());
  EXPECT_EQ(StatusOr<int>(OkStatus()).status().code(), StatusCode::kInternal);
}

TEST(ParallelForTest, CoversEveryIndexOnceForAnyNumberOfThreads) {
  for (const int threads : {1, 2, 3}) {
    for (const int64_t count : {0, 1, 2, 7, 1000}) {
      for (const int64_t grain : {0, 1, 100}) {
        Exec exec;
        exec.num_threads = threads;
        std::vector<std::atomic<int>> visits(count);
        ParallelFor(exec, count, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++visits[i];
        });
        for (const auto& v : visits) ASSERT_EQ(v, 1);
      }
    }
  }
}

}  // namespace
}  // namespace te
