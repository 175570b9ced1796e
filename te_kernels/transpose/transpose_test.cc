#include "te_kernels/transpose/transpose.h"

#include <vector>

#include "gtest/gtest.h"
#include "te_kernels/testing/host_tensor.h"
#include "te_kernels/testing/near.h"
#include "te_kernels/testing/test_device.h"
#include "te_kernels/transpose/transpose_ref.h"

namespace te {
namespace {

using test::FailsWith;
using test::HostTensor;
using test::IsOk;
using test::TestExec;

HostTensor Bytes(const Shape& shape) {
  return HostTensor(DType::kUInt8, shape, test::UniformDoubles(shape.elements(), 3, 0, 255.999));
}

TEST(TransposeTest, EqualsTheReference) {
  const std::vector<Shape> shapes = {{0, 3},    {3, 0},     {1, 1},     {5, 7},    {128, 128},
                                     {16, 264}, {136, 248}, {130, 257}, {1, 1000}, {1000, 1}};
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(shape.ToString());
    const HostTensor x = Bytes(shape), y(DType::kUInt8, {shape[1], shape[0]});
    TestExec exec(2);
    ASSERT_TRUE(IsOk(TE_OP(Transpose)(exec, {.x = x, .y = y})));
    std::vector<uint8_t> want = TransposeRef(x.Bytes(), shape[0], shape[1]);
    EXPECT_EQ(y.Bytes(), want);
    EXPECT_TRUE(x.GuardsIntact() && y.GuardsIntact());
    if (want.empty()) continue;
    want.back() ^= 1;  // the twin
    EXPECT_NE(y.Bytes(), want);
  }
}

// A view whose address suits no vector.
TEST(TransposeTest, AnyAddress) {
  const HostTensor x = Bytes({8 * 128 + 3}), y(DType::kUInt8, {128, 8});
  const TensorView tail = x.view().Slice(0, 3, 8 * 128 + 3).Reshape({8, 128});
  TestExec exec;
  ASSERT_TRUE(IsOk(TE_OP(Transpose)(exec, {.x = tail, .y = y})));
  const std::vector<uint8_t> all = x.Bytes();
  EXPECT_EQ(y.Bytes(), TransposeRef({all.begin() + 3, all.end()}, 8, 128));
}

TEST(TransposeTest, RefusesWhatTheContractDoesNotTake) {
  const HostTensor x = Bytes({4, 6}), y(DType::kUInt8, {6, 4}), line = Bytes({24}),
                   floats(DType::kFloat32, {6, 4}), wide(DType::kUInt8, {8, 6});
  TestExec exec;
  const auto refuses = [&](const TransposeArgs& args, const char* part) {
    return FailsWith(TE_OP(Transpose)(exec, args), StatusCode::kInvalidArgument, part);
  };
  EXPECT_TRUE(refuses({.x = line, .y = y}, "x is uint8 [24]; expected uint8 of rank 2"));
  EXPECT_TRUE(refuses({.x = x, .y = x}, "expected uint8 [6, 4]"));
  EXPECT_TRUE(refuses({.x = x, .y = floats}, "y is float32 [6, 4]"));
  EXPECT_TRUE(refuses({.x = floats, .y = y}, "x is float32 [6, 4]"));
  EXPECT_TRUE(refuses({.x = wide.view().Transpose(0, 1).Slice(1, 0, 4), .y = y}, "x"));
  EXPECT_TRUE(refuses({.x = x, .y = x.view().Reshape({6, 4})}, "y is x's memory"));
  EXPECT_EQ(y.Bytes(), std::vector<uint8_t>(24)) << "nothing half-written";
}

}  // namespace
}  // namespace te
