#include "te_kernels/attention/attention_blocks.h"

#include <algorithm>

namespace te {
namespace {

constexpr int64_t kMaxRows = 128;
constexpr int64_t kMinRows = 16;
constexpr int64_t kScoreElements = int64_t{1} << 18;
constexpr int64_t kMostExtents = 32;  // distinct key extents of a causal mask

}  // namespace

std::vector<AttentionBlock> CutAttention(const AttentionMask& mask, int64_t num_queries,
                                         int64_t num_keys) {
  const int64_t rows =
      std::clamp(kScoreElements / std::max<int64_t>(num_keys, 1), kMinRows, kMaxRows);
  const int64_t grain = std::max<int64_t>(64, (num_keys / kMostExtents + 63) / 64 * 64);
  std::vector<AttentionBlock> blocks;
  for (int64_t query = 0; query < num_queries; query += rows) {
    AttentionBlock block;
    block.query = query;
    block.rows = std::min(rows, num_queries - query);
    int64_t begin = num_keys, end = 0;
    for (int64_t i = query; i < query + block.rows; ++i) {
      const KeyRange range = VisibleKeys(mask, i, num_queries, num_keys);
      if (range.begin >= range.end) continue;
      begin = std::min(begin, range.begin);
      end = std::max(end, range.end);
    }
    if (begin < end) {
      block.key = begin / grain * grain;
      block.keys = std::min(num_keys, (end + grain - 1) / grain * grain) - block.key;
    }
    blocks.push_back(block);
  }
  return blocks;
}

}  // namespace te
