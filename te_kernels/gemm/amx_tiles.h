// What runs on AMX tiles: packing operands, multiplying panels, storing sums. x86-64 alone;
// compiled for AMX whatever the build's flags, so ask Available() first.
#pragma once

#include <cstdint>

namespace te::amx {

constexpr int64_t kPanel = 32;        // lines (rows of a, columns of b) of a panel: two tiles
constexpr int64_t kTerms = 32;        // terms of a tile
constexpr int64_t kStepBytes = 2048;  // a panel's two tiles of kTerms terms

// Whether the processor has AMX for bfloat16 (and AVX-512 for the rest) and the system lets this
// process use it. Asks the system for the permission.
bool Available();

// The tiles' shapes, for the calling thread. oneDNN sets its own: one scope a use.
class TileScope {
 public:
  TileScope();
  ~TileScope();
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

// Up to kPanel lines of an operand, bfloat16.
struct PanelSource {
  const uint16_t* x;
  int64_t stride;  // elements between lines, or between terms when lines are contiguous
  int64_t lines;
  int64_t terms;
  bool terms_contiguous;
  bool rows_are_lines;  // a tile's row is a line (a) or a pair of terms (b)
};

// Panel -> [ceil(terms / kTerms)][2 tiles][1 KiB], zeros beyond the edges.
void PackPanel(const PanelSource& from, char* to);

// sums (+)= the product of two panels of `steps` steps; sums: four tiles of 16 x 16, row by row.
// On the way `lines_a_step` cache lines a step come nearer from `next`, which a later call reads.
void Multiply(const char* a, const char* b, int64_t steps, bool accumulate, float* sums,
              const char* next, int64_t lines_a_step);

struct Epilogue {
  int64_t d_stride;
  bool d_is_float;
  bool bias_is_float;
  float alpha;
  bool accumulate;
};

// d[row.., column..] (+)= alpha * sums (+ bias); sums as Multiply leaves them.
void Store(const Epilogue& epilogue, const float* sums, int64_t row, int64_t column, int64_t rows,
           int64_t columns, const void* bias, void* d);

}  // namespace te::amx
