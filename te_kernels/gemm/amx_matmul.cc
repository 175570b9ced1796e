#include "te_kernels/gemm/amx_matmul.h"

#include <omp.h>

#include <algorithm>
#include <cstring>

#include "te_kernels/gemm/amx_tiles.h"

// Why not oneDNN's: its 2.6 reaches 1000 GFLOP/s a core in bfloat16 where the tiles give 3400, and
// 600 where an operand is read against its grain (as both gradients of a linear layer do). Here
// both operands are packed into tiles on the way, whatever their orientation; the panels that one
// thread multiplies stay in its L1 and L2 caches.
namespace te {

#if defined(__x86_64__)
namespace {

constexpr int64_t kBlockBytes = int64_t{1280} << 10;  // of packed panels that shall stay in L2

// Panels that a block has at most: their sums are on the stack, 4 KiB each.
constexpr int64_t kMaxBlockPanels = 24;
// 256 terms: a panel's 16 KiB stay in L1 (2200 GFLOP/s a core against 1700 without chunks).
constexpr int64_t kChunkSteps = 8;

int64_t Ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One operand: lines are what its panels cut (rows of a, columns of b), terms what is summed.
struct PackedOperand {
  bool terms_contiguous;
  int64_t stride;  // elements between lines, or between terms when lines are contiguous
  int64_t lines;
  int64_t panels;
  bool is_a;
};

PackedOperand MakeOperand(const ConstTensorView& view, int line_axis) {
  PackedOperand out;
  const int term_axis = 1 - line_axis;
  out.terms_contiguous = view.stride(term_axis) == 1;
  out.stride = view.stride(out.terms_contiguous ? line_axis : term_axis);
  out.lines = view.dim(line_axis);
  out.panels = Ceil(out.lines, amx::kPanel);
  out.is_a = line_axis == 0;
  return out;
}

class AmxMatmul : public Matmul {
 public:
  explicit AmxMatmul(const MatmulSpec& spec)
      : a_(MakeOperand(spec.a, 0)),
        b_(MakeOperand(spec.b, 1)),
        terms_(spec.a.dim(1)),
        panel_bytes_(Ceil(terms_, amx::kTerms) * amx::kStepBytes),
        threads_(std::max(1, spec.num_threads)),
        epilogue_{.d_stride = spec.d.stride(0),
                  .d_is_float = spec.d.dtype() == DType::kFloat32,
                  .bias_is_float = spec.bias.defined() && spec.bias.dtype() == DType::kFloat32,
                  .alpha = spec.alpha,
                  .accumulate = spec.accumulate} {
    // The smaller operand is packed whole, for all threads; the other in blocks, each by the thread
    // that multiplies it.
    a_whole_ = a_.panels <= b_.panels;
    const int64_t fits = std::clamp<int64_t>(kBlockBytes / panel_bytes_, 1, kMaxBlockPanels);
    const int64_t rounds = Ceil(Cut().panels, fits * threads_);
    blocks_ = std::min(Cut().panels, rounds * threads_);
    block_panels_ = Ceil(Cut().panels, blocks_);
  }

  size_t scratchpad_bytes() const override {
    return static_cast<size_t>((Whole().panels + threads_ * block_panels_) * panel_bytes_);
  }

  Status Execute(const void* a, const void* b, const void* bias, void* d,
                 void* scratchpad) const override {
    char* const whole = static_cast<char*>(scratchpad);
    const void* const whole_data = a_whole_ ? a : b;
    const void* const cut_data = a_whole_ ? b : a;
    if (threads_ == 1) {
      const amx::TileScope tiles;
      Pack(Whole(), whole_data, 0, Whole().panels, whole);
      for (int64_t block = 0; block < blocks_; ++block)
        Block(block, whole, cut_data, bias, d, whole + Whole().panels * panel_bytes_);
      return OkStatus();
    }
#pragma omp parallel num_threads(threads_)
    {
      const amx::TileScope tiles;
      char* const mine =
          whole + (Whole().panels + omp_get_thread_num() * block_panels_) * panel_bytes_;
#pragma omp for schedule(static)
      for (int64_t panel = 0; panel < Whole().panels; ++panel)
        Pack(Whole(), whole_data, panel, panel + 1, whole + panel * panel_bytes_);
#pragma omp for schedule(dynamic, 1)
      for (int64_t block = 0; block < blocks_; ++block)
        Block(block, whole, cut_data, bias, d, mine);
    }
    return OkStatus();
  }

 private:
  const PackedOperand& Whole() const { return a_whole_ ? a_ : b_; }
  const PackedOperand& Cut() const { return a_whole_ ? b_ : a_; }

  void Pack(const PackedOperand& operand, const void* data, int64_t begin, int64_t end,
            char* to) const {
    const auto* x = static_cast<const uint16_t*>(data);
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t line = panel * amx::kPanel;
      amx::PackPanel({.x = x + line * (operand.terms_contiguous ? operand.stride : 1),
                      .stride = operand.stride,
                      .lines = std::min(amx::kPanel, operand.lines - line),
                      .terms = terms_,
                      .terms_contiguous = operand.terms_contiguous,
                      .rows_are_lines = operand.is_a},
                     to + (panel - begin) * panel_bytes_);
    }
  }

  void Block(int64_t block, const char* whole, const void* cut_data, const void* bias, void* d,
             char* mine) const {
    alignas(64) float sums[kMaxBlockPanels * amx::kPanel * amx::kPanel];
    const int64_t begin = Cut().panels * block / blocks_;
    const int64_t end = Cut().panels * (block + 1) / blocks_;
    Pack(Cut(), cut_data, begin, end, mine);
    const int64_t steps = panel_bytes_ / amx::kStepBytes;
    for (int64_t i = 0; i < Whole().panels; ++i) {
      // A chunk of the whole operand's panel stays in L1 while the block's panels meet it.
      for (int64_t step = 0; step < steps; step += kChunkSteps) {
        const int64_t count = std::min(kChunkSteps, steps - step);
        // The next chunk's cache lines, spread over this one's steps.
        const int64_t lines = Ceil(amx::kStepBytes / 64, end - begin);
        const char* const from_whole = whole + i * panel_bytes_ + step * amx::kStepBytes;
        for (int64_t j = 0; j < end - begin; ++j) {
          const char* const from_cut = mine + j * panel_bytes_ + step * amx::kStepBytes;
          float* const sum = sums + j * amx::kPanel * amx::kPanel;
          amx::Multiply(a_whole_ ? from_whole : from_cut, a_whole_ ? from_cut : from_whole, count,
                        step != 0, sum, from_whole + count * (amx::kStepBytes + j * lines * 64),
                        lines);
          if (step + count < steps) continue;
          const int64_t row = (a_whole_ ? i : begin + j) * amx::kPanel;
          const int64_t column = (a_whole_ ? begin + j : i) * amx::kPanel;
          amx::Store(epilogue_, sum, row, column, std::min(amx::kPanel, a_.lines - row),
                     std::min(amx::kPanel, b_.lines - column), bias, d);
        }
      }
    }
  }

  PackedOperand a_, b_;
  int64_t terms_;
  int64_t panel_bytes_;
  int threads_;
  amx::Epilogue epilogue_;
  bool a_whole_ = true;
  int64_t blocks_ = 1;
  int64_t block_panels_ = 1;
};

bool Packable(const ConstTensorView& view) {
  return view.dtype() == DType::kBFloat16 && view.rank() == 2 &&
         (view.stride(0) == 1 || view.stride(1) == 1);
}

}  // namespace

bool RunsOnAmx(const MatmulSpec& spec) {
  // Narrower than a panel, packing costs more than the product.
  constexpr int64_t kMin = 32;
  return Packable(spec.a) && Packable(spec.b) && spec.d.stride(1) == 1 && spec.a.dim(0) >= kMin &&
         spec.a.dim(1) >= kMin && spec.b.dim(1) >= kMin && amx::Available();
}

std::shared_ptr<const Matmul> MakeAmxMatmul(const MatmulSpec& spec) {
  return RunsOnAmx(spec) ? std::make_shared<AmxMatmul>(spec) : nullptr;
}

#else

bool RunsOnAmx(const MatmulSpec&) { return false; }
std::shared_ptr<const Matmul> MakeAmxMatmul(const MatmulSpec&) { return nullptr; }

#endif

}  // namespace te
