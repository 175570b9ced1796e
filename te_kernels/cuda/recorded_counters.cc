#include "te_kernels/cuda/recorded_counters.h"

#include <cuda_runtime_api.h>

#include <utility>
#include <vector>

#include "te_kernels/cuda/cuda_status.h"

namespace te::cuda {
namespace {

StatusOr<std::vector<cudaGraphNode_t>> NodesOf(cudaGraph_t graph) {
  size_t count = 0;
  TE_RETURN_IF_ERROR(ToStatus(cudaGraphGetNodes(graph, nullptr, &count), "cudaGraphGetNodes"));
  std::vector<cudaGraphNode_t> nodes(count);
  TE_RETURN_IF_ERROR(ToStatus(cudaGraphGetNodes(graph, nodes.data(), &count), "cudaGraphGetNodes"));
  return nodes;
}

// What `node` waits for and what waits for it, if that is one node each; else a null.
StatusOr<std::pair<cudaGraphNode_t, cudaGraphNode_t>> NeighboursOf(cudaGraphNode_t node) {
  cudaGraphNode_t before = nullptr, after = nullptr;
  cudaGraphEdgeData edge;
  size_t count = 0;
  TE_RETURN_IF_ERROR(ToStatus(cudaGraphNodeGetDependencies(node, nullptr, nullptr, &count),
                              "cudaGraphNodeGetDependencies"));
  if (count == 1) {
    TE_RETURN_IF_ERROR(ToStatus(cudaGraphNodeGetDependencies(node, &before, &edge, &count),
                                "cudaGraphNodeGetDependencies"));
  }
  TE_RETURN_IF_ERROR(ToStatus(cudaGraphNodeGetDependentNodes(node, nullptr, nullptr, &count),
                              "cudaGraphNodeGetDependentNodes"));
  if (count == 1) {
    TE_RETURN_IF_ERROR(ToStatus(cudaGraphNodeGetDependentNodes(node, &after, &edge, &count),
                                "cudaGraphNodeGetDependentNodes"));
  }
  return std::pair(before, after);
}

}  // namespace

RecordedCounters::~RecordedCounters() {
  if (counters_ != nullptr) memory_->Free(counters_, kAllBytes);
}

Status RecordedCounters::BeginRecording(MemoryResource* memory) {
  if (counters_ == nullptr) {
    TE_ASSIGN_OR_RETURN(void* allocated, memory->Allocate(kAllBytes));
    counters_ = static_cast<char*>(allocated);
    memory_ = memory;
  }
  taken_ = 0;
  recording_ = true;
  return OkStatus();
}

void* RecordedCounters::Next(size_t bytes) {
  return recording_ && bytes <= kBytes && taken_ < kCounters ? counters_ + kBytes * taken_++
                                                             : nullptr;
}

bool RecordedCounters::Zeroes(const cudaMemsetParams& memset) const {
  const char* begin = static_cast<const char*>(memset.dst);
  return begin >= counters_ && begin < counters_ + kBytes * taken_ && memset.height == 1 &&
         memset.width * memset.elementSize <= kBytes && memset.value == 0;
}

Status RecordedCounters::EndRecording(cudaGraph_t graph) {
  recording_ = false;
  if (graph == nullptr || taken_ == 0) return OkStatus();
  TE_ASSIGN_OR_RETURN(const std::vector<cudaGraphNode_t> nodes, NodesOf(graph));
  for (cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type;
    TE_RETURN_IF_ERROR(ToStatus(cudaGraphNodeGetType(node, &type), "cudaGraphNodeGetType"));
    if (type != cudaGraphNodeTypeMemset) continue;
    cudaMemsetParams memset;
    TE_RETURN_IF_ERROR(
        ToStatus(cudaGraphMemsetNodeGetParams(node, &memset), "cudaGraphMemsetNodeGetParams"));
    if (!Zeroes(memset)) continue;
    TE_ASSIGN_OR_RETURN(const auto neighbours, NeighboursOf(node));
    const auto& [before, after] = neighbours;
    if (before == nullptr || after == nullptr) continue;
    TE_RETURN_IF_ERROR(ToStatus(cudaGraphAddDependencies(graph, &before, &after, nullptr, 1),
                                "cudaGraphAddDependencies"));
    TE_RETURN_IF_ERROR(ToStatus(cudaGraphDestroyNode(node), "cudaGraphDestroyNode"));
  }
  size_t count = 0;
  TE_RETURN_IF_ERROR(
      ToStatus(cudaGraphGetRootNodes(graph, nullptr, &count), "cudaGraphGetRootNodes"));
  std::vector<cudaGraphNode_t> roots(count);
  TE_RETURN_IF_ERROR(
      ToStatus(cudaGraphGetRootNodes(graph, roots.data(), &count), "cudaGraphGetRootNodes"));
  cudaMemsetParams all = {};
  all.dst = counters_;
  all.elementSize = 1;
  all.width = kBytes * taken_;
  all.height = 1;
  cudaGraphNode_t first = nullptr;
  TE_RETURN_IF_ERROR(
      ToStatus(cudaGraphAddMemsetNode(&first, graph, nullptr, 0, &all), "cudaGraphAddMemsetNode"));
  const std::vector<cudaGraphNode_t> from(count, first);
  return ToStatus(cudaGraphAddDependencies(graph, from.data(), roots.data(), nullptr, count),
                  "cudaGraphAddDependencies");
}

}  // namespace te::cuda
