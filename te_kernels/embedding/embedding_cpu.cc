#include <algorithm>
#include <cstring>

#include "te_kernels/base/parallel.h"
#include "te_kernels/base/simd.h"
#include "te_kernels/embedding/embedding.h"

namespace te {
namespace {

constexpr int64_t kGrainBytes = 1 << 16;
constexpr int64_t kColumns = 256;  // of one task of the backward pass: its sums stay in L1

Status CheckIds(const char* operation, const ConstTensorView& ids, int64_t vocabulary) {
  const int32_t* id = ids.as<int32_t>();
  for (int64_t t = 0; t < ids.dim(0); ++t) {
    if (id[t] < 0 || id[t] >= vocabulary) {
      return InvalidArgument("{}: ids[{}] is {}; expected a value in [0, {})", operation, t, id[t],
                             vocabulary);
    }
  }
  return OkStatus();
}

// Adds the rows of dout that `sorted` lists to the row of dtable that they name. Tasks are
// (distinct id, block of columns): every sum has one owner, which adds in the order of t.
template <typename T>
void AddRows(const Exec& exec, const EmbeddingBackwardArgs& args, const uint64_t* sorted,
             const int64_t* segments, int64_t distinct) {
  const int64_t hidden = args.dout.dim(1);
  const int64_t blocks = (hidden + kColumns - 1) / kColumns;
  const T* dout = args.dout.as<T>();
  T* dtable = args.dtable.as<T>();
  ParallelFor(exec, distinct * blocks, 16, [&](int64_t begin, int64_t end) {
    float sum[kColumns];
    for (int64_t task = begin; task < end; ++task) {
      const int64_t segment = task / blocks;
      const int64_t column = task % blocks * kColumns;
      const int64_t width = std::min(kColumns, hidden - column);
      const auto id = static_cast<int64_t>(sorted[segments[segment]] >> 32);
      T* out = dtable + id * hidden + column;
      for (int64_t h = 0; h < width; ++h) sum[h] = args.accumulate ? LoadFloat(out + h) : 0;
      for (int64_t i = segments[segment]; i < segments[segment + 1]; ++i) {
        const auto t = static_cast<int64_t>(sorted[i] & 0xffffffffu);
        const T* row = dout + t * hidden + column;
        for (int64_t h = 0; h < width; ++h) sum[h] += LoadFloat(row + h);
      }
      for (int64_t h = 0; h < width; ++h) StoreRounded(sum[h], out + h);
    }
  });
}

}  // namespace

Status EmbeddingForwardCpu(const Exec& exec, const EmbeddingForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateEmbeddingForward(args));
  TE_RETURN_IF_ERROR(CheckIds("embedding", args.ids, args.table.dim(0)));
  const size_t row_bytes = static_cast<size_t>(args.table.dim(1)) * SizeOf(args.table.dtype());
  if (row_bytes == 0) return OkStatus();
  const int32_t* ids = args.ids.as<int32_t>();
  const auto* table = static_cast<const char*>(args.table.data());
  auto* out = static_cast<char*>(args.out.data());
  ParallelFor(exec, args.ids.dim(0), kGrainBytes / static_cast<int64_t>(row_bytes) + 1,
              [&](int64_t begin, int64_t end) {
                for (int64_t t = begin; t < end; ++t) {
                  std::memcpy(out + t * row_bytes, table + ids[t] * row_bytes, row_bytes);
                }
              });
  return OkStatus();
}

Status EmbeddingBackwardCpu(const Exec& exec, const EmbeddingBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateEmbeddingBackward(args));
  TE_RETURN_IF_ERROR(CheckIds("embedding backward", args.ids, args.dtable.dim(0)));
  if (args.dtable.elements() == 0) return OkStatus();
  const int64_t tokens = args.ids.dim(0);
  ArenaScope scope(exec.scratch);
  // (id, t) in one key: sorting keys orders tokens by id, then by t.
  TE_ASSIGN_OR_RETURN(void* keys, exec.scratch->Allocate(tokens * sizeof(uint64_t)));
  TE_ASSIGN_OR_RETURN(void* starts, exec.scratch->Allocate((tokens + 1) * sizeof(int64_t)));
  auto* sorted = static_cast<uint64_t*>(keys);
  auto* segments = static_cast<int64_t*>(starts);
  const int32_t* ids = args.ids.as<int32_t>();
  int64_t summed = 0;  // all but the padding row's
  for (int64_t t = 0; t < tokens; ++t) {
    if (ids[t] == args.padding_idx) continue;
    sorted[summed++] = static_cast<uint64_t>(ids[t]) << 32 | static_cast<uint64_t>(t);
  }
  std::sort(sorted, sorted + summed);
  int64_t distinct = 0;
  for (int64_t i = 0; i < summed; ++i) {
    if (i == 0 || sorted[i] >> 32 != sorted[i - 1] >> 32) segments[distinct++] = i;
  }
  segments[distinct] = summed;
  if (!args.accumulate) {
    auto* bytes = static_cast<char*>(args.dtable.data());
    ParallelFor(exec, static_cast<int64_t>(args.dtable.bytes()), kGrainBytes,
                [&](int64_t begin, int64_t end) { std::memset(bytes + begin, 0, end - begin); });
  }
  if (args.dtable.dtype() == DType::kFloat32) {
    AddRows<float>(exec, args, sorted, segments, distinct);
  } else {
    AddRows<bfloat16>(exec, args, sorted, segments, distinct);
  }
  return OkStatus();
}

}  // namespace te
