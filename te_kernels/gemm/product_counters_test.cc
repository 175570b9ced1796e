// Which operations of a captured stream move to its graph's start, and that the others stay.
#include "te_kernels/gemm/product_counters.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <vector>

#include "te_kernels/testing/checked.h"

namespace te {
namespace {

using test::Ok;

#define CUDA_OK(call) ASSERT_EQ(call, cudaSuccess)

class ProductCountersTest : public testing::Test {
 protected:
  void SetUp() override {
    CUDA_OK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    CUDA_OK(cudaMalloc(&memory_, kBytes));
  }
  void TearDown() override {
    cudaFree(memory_);
    cudaStreamDestroy(stream_);
  }

  static constexpr size_t kBytes = 1024;
  cudaStream_t stream_ = nullptr;
  void* memory_ = nullptr;
  ProductCounters counters_;
};

TEST_F(ProductCountersTest, GivesOutCountersDuringARecordingAlone) {
  EXPECT_EQ(counters_.Next(), nullptr);
  Ok(counters_.BeginRecording());
  const auto* first = static_cast<const char*>(counters_.Next());
  ASSERT_NE(first, nullptr);
  const char* last = first;
  while (const void* next = counters_.Next()) {
    ASSERT_EQ(static_cast<const char*>(next), last + ProductCounters::kBytes);
    last += ProductCounters::kBytes;
  }
  EXPECT_GE(last - first, ptrdiff_t{1000} * static_cast<ptrdiff_t>(ProductCounters::kBytes));
  Ok(counters_.EndRecording(nullptr));  // a capture that failed
  EXPECT_EQ(counters_.Next(), nullptr);
  Ok(counters_.BeginRecording());
  EXPECT_EQ(counters_.Next(), first);
}

TEST_F(ProductCountersTest, ZeroesAllAtTheStartAndLeavesTheRestInOrder) {
  Ok(counters_.BeginRecording());
  void* counters[3] = {};
  CUDA_OK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  CUDA_OK(cudaMemsetAsync(memory_, 1, kBytes, stream_));
  for (void*& counter : counters) {
    counter = counters_.Next();
    CUDA_OK(cudaMemsetAsync(counter, 0, 4, stream_));
    // What a product leaves there: not zero, so it stays where it is.
    CUDA_OK(cudaMemsetAsync(counter, 7, 4, stream_));
  }
  CUDA_OK(cudaMemsetAsync(memory_, 0, kBytes / 2, stream_));  // zero, and no counter
  cudaGraph_t graph = nullptr;
  CUDA_OK(cudaStreamEndCapture(stream_, &graph));
  Ok(counters_.EndRecording(graph));

  // One after the other, as they were.
  std::vector<cudaMemsetParams> order;
  cudaGraphNode_t node = nullptr;
  size_t count = 1;
  CUDA_OK(cudaGraphGetRootNodes(graph, &node, &count));
  while (count == 1) {
    cudaMemsetParams memset;
    CUDA_OK(cudaGraphMemsetNodeGetParams(node, &memset));
    order.push_back(memset);
    CUDA_OK(cudaGraphNodeGetDependentNodes(node, nullptr, nullptr, &count));
    if (count != 1) break;
    cudaGraphEdgeData edge;
    CUDA_OK(cudaGraphNodeGetDependentNodes(node, &node, &edge, &count));
  }
  EXPECT_EQ(count, 0u);
  const struct {
    void* at;
    unsigned int value;
    size_t bytes;
  } want[] = {{counters[0], 0, 3 * ProductCounters::kBytes},
              {memory_, 1, kBytes},
              {counters[0], 7, 4},
              {counters[1], 7, 4},
              {counters[2], 7, 4},
              {memory_, 0, kBytes / 2}};
  ASSERT_EQ(order.size(), std::size(want));
  for (size_t i = 0; i < order.size(); ++i) {
    EXPECT_EQ(order[i].dst, want[i].at) << i;
    EXPECT_EQ(order[i].value & 0xff, want[i].value) << i;
    EXPECT_EQ(order[i].width * order[i].elementSize, want[i].bytes) << i;
  }
  cudaGraphDestroy(graph);
}

}  // namespace
}  // namespace te
