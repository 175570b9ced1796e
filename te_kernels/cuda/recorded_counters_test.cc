// Which operations of a captured stream move to its graph's start, and that the others stay.
#include "te_kernels/cuda/recorded_counters.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <vector>

#include "te_kernels/cuda/cuda_status.h"
#include "te_kernels/testing/checked.h"

namespace te::cuda {
namespace {

using test::Ok;

#define CUDA_OK(call) ASSERT_EQ(call, cudaSuccess)

class DeviceMemory : public MemoryResource {
 public:
  StatusOr<void*> Allocate(size_t bytes) override {
    void* memory = nullptr;
    TE_RETURN_IF_ERROR(ToStatus(cudaMalloc(&memory, bytes), "cudaMalloc"));
    return memory;
  }
  void Free(void* pointer, size_t) override { cudaFree(pointer); }
};

class RecordedCountersTest : public testing::Test {
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
  DeviceMemory device_;
  RecordedCounters counters_;
};

TEST_F(RecordedCountersTest, GivesOutCountersDuringARecordingAlone) {
  EXPECT_EQ(counters_.Next(4), nullptr);
  Ok(counters_.BeginRecording(&device_));
  EXPECT_EQ(counters_.Next(RecordedCounters::kBytes + 1), nullptr);
  const auto* first = static_cast<const char*>(counters_.Next(4));
  ASSERT_NE(first, nullptr);
  const char* last = first;
  while (const void* next = counters_.Next(RecordedCounters::kBytes)) {
    ASSERT_EQ(static_cast<const char*>(next), last + RecordedCounters::kBytes);
    last += RecordedCounters::kBytes;
  }
  EXPECT_GE(last - first, ptrdiff_t{1000} * static_cast<ptrdiff_t>(RecordedCounters::kBytes));
  Ok(counters_.EndRecording(nullptr));  // a capture that failed
  EXPECT_EQ(counters_.Next(4), nullptr);
  Ok(counters_.BeginRecording(&device_));
  EXPECT_EQ(counters_.Next(4), first);
}

TEST_F(RecordedCountersTest, ZeroesAllAtTheStartAndLeavesTheRestInOrder) {
  Ok(counters_.BeginRecording(&device_));
  void* counters[3] = {};
  CUDA_OK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  CUDA_OK(cudaMemsetAsync(memory_, 1, kBytes, stream_));
  for (void*& counter : counters) {
    counter = counters_.Next(4);
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
  } want[] = {{counters[0], 0, 3 * RecordedCounters::kBytes},
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
}  // namespace te::cuda
