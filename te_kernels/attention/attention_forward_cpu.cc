#include <algorithm>
#include <cmath>
#include <limits>

#include "te_kernels/attention/attention.h"
#include "te_kernels/attention/attention_blocks.h"
#include "te_kernels/attention/attention_float_cpu.h"
#include "te_kernels/attention/attention_rows.h"
#include "te_kernels/cast/in_float.h"

namespace te {
namespace {

enum Product { kScores = 0, kOut = 1 };

template <typename T>
class Forward {
 public:
  // `rounding`: of the probabilities, or null.
  Forward(const Exec& exec, const AttentionForwardArgs& args, const Float8Rounding* rounding)
      : exec_(exec),
        args_(args),
        rounding_(rounding),
        num_keys_(args.k.dim(1)),
        random_(args.random.Resolved()) {}

  Status Run() {
    blocks_ = CutAttention(args_.mask, args_.q.dim(1), num_keys_);
    ArenaScope scope(exec_.scratch);
    TE_RETURN_IF_ERROR(Plan());
    const int64_t tasks = args_.q.dim(0) * args_.q.dim(2) * static_cast<int64_t>(blocks_.size());
    TaskErrors errors(static_cast<int>(scratch_.size()));
    OmpThreads one(1);  // inside the region each product runs on its own thread
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast <int>(scratch_.size()))
    for (int64_t task = 0; task < tasks; ++task) errors.Keep(Task(task));
    return errors.First();
  }

  float amax() const {
    float largest = 0;
    for (const AttentionScratch<T>& one : scratch_) largest = std::max(largest, one.amax);
    return largest;
  }

 private:
  // Primitives and each thread's memory.
  Status Plan() {
    TE_ASSIGN_OR_RETURN(OnednnState * state, GetOnednnState(exec_));
    size_t scratchpad = 0;
    int64_t elements = 1;
    for (AttentionBlock& block : blocks_) {
      if (block.keys == 0) continue;
      elements = std::max(elements, block.rows * block.keys);
      const ConstTensorView q = Head(args_.q, 0, 0, block.query, block.rows);
      const ConstTensorView k = Head(args_.k, 0, 0, block.key, block.keys);
      const ConstTensorView v = Head(args_.v, 0, 0, block.key, block.keys);
      const Shape scores = {block.rows, block.keys};
      TE_ASSIGN_OR_RETURN(block.products[kScores],
                          state->Get({.a = q,
                                      .b = k.Transpose(0, 1),
                                      .d = ConstTensorView(nullptr, DType::kFloat32, scores)}));
      TE_ASSIGN_OR_RETURN(block.products[kOut],
                          state->Get({.a = ConstTensorView(nullptr, DTypeOf<T>::value, scores),
                                      .b = v,
                                      .d = Head(args_.out, 0, 0, block.query, block.rows)}));
      for (Product product : {kScores, kOut})
        scratchpad = std::max(scratchpad, block.products[product]->scratchpad_bytes());
    }
    scratch_.resize(std::max(1, exec_.num_threads));
    for (AttentionScratch<T>& mine : scratch_) {
      TE_RETURN_IF_ERROR(AllocateArray(exec_, elements, &mine.scores));
      TE_RETURN_IF_ERROR(AllocateArray(exec_, elements, &mine.probabilities));
      TE_ASSIGN_OR_RETURN(mine.scratchpad, exec_.scratch->Allocate(scratchpad));
    }
    return OkStatus();
  }

  Status Task(int64_t task) {
    const int64_t num_blocks = static_cast<int64_t>(blocks_.size());
    // Later blocks of a causal mask are longer: they go first.
    const AttentionBlock& block = blocks_[num_blocks - 1 - task % num_blocks];
    const int64_t head = task / num_blocks % args_.q.dim(2);
    const int64_t batch = task / num_blocks / args_.q.dim(2);
    const int64_t group = head / (args_.q.dim(2) / args_.k.dim(2));
    const TensorView out = Head(args_.out, batch, head, block.query, block.rows);
    if (block.keys == 0) {
      for (int64_t i = 0; i < block.rows; ++i) {
        std::fill_n(out.Select(0, i).template as<T>(), out.dim(1), T(0.0f));
        StoreLse(batch, head, block.query + i, -std::numeric_limits<float>::infinity());
      }
      return OkStatus();
    }
    AttentionScratch<T>& mine = scratch_[ThreadIndex()];
    TE_RETURN_IF_ERROR(
        block.products[kScores]->Execute(Head(args_.q, batch, head, block.query, block.rows).data(),
                                         Head(args_.k, batch, group, block.key, block.keys).data(),
                                         nullptr, mine.scores, mine.scratchpad));
    for (int64_t i = 0; i < block.rows; ++i) {
      const int64_t query = block.query + i;
      const MaskedRow mask(args_.mask, batch, head, query, args_.q.dim(1), num_keys_);
      float* scores = mine.scores + i * block.keys;
      T* probabilities = mine.probabilities + i * block.keys;
      StoreLse(batch, head, query,
               SoftmaxRow(mask, args_.softmax_scale, block.key, block.keys, scores));
      if (args_.dropout > 0) {
        const uint64_t first =
            RandomIndex(args_.q, num_keys_, batch, head, query) + static_cast<uint64_t>(block.key);
        DropRow(random_, first, args_.dropout, block.keys, scores);
      }
      if (rounding_ != nullptr) rounding_->Row(scores, block.keys, &mine.amax);
      RoundRow(scores, block.keys, probabilities);
    }
    return block.products[kOut]->Execute(mine.probabilities,
                                         Head(args_.v, batch, group, block.key, block.keys).data(),
                                         nullptr, out.data(), mine.scratchpad);
  }

  void StoreLse(int64_t batch, int64_t head, int64_t query, float value) {
    const TensorView& lse = args_.lse;
    if (lse.defined())
      lse.as<float>()[batch * lse.stride(0) + head * lse.stride(1) + query * lse.stride(2)] = value;
  }

  const Exec& exec_;
  const AttentionForwardArgs& args_;
  const Float8Rounding* rounding_;
  int64_t num_keys_;
  RandomState random_;
  std::vector<AttentionBlock> blocks_;
  std::vector<AttentionScratch<T>> scratch_;
};

Status ThroughFloat(const Exec& exec, const AttentionForwardArgs& args) {
  ArenaScope scope(exec.scratch);
  AttentionForwardArgs in_float = args;
  TE_ASSIGN_OR_RETURN(in_float.q, InFloat(exec, args.q));
  TE_ASSIGN_OR_RETURN(in_float.k, InFloat(exec, args.k));
  TE_ASSIGN_OR_RETURN(in_float.v, InFloat(exec, args.v));
  TE_ASSIGN_OR_RETURN(in_float.out, exec.scratch->Allocate(DType::kFloat32, args.out.shape()));
  TE_RETURN_IF_ERROR(AttentionForwardCpu(exec, in_float));
  return CastCpu(exec, {.x = in_float.out, .y = args.out});
}

}  // namespace

Status AttentionForwardCpu(const Exec& exec, const AttentionForwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateAttentionForward(args));
  if (args.out.elements() == 0 && args.q.elements() == 0) return OkStatus();
  if (args.q.dtype() == DType::kFloat32) return Forward<float>(exec, args, nullptr).Run();
  TE_ASSIGN_OR_RETURN(const OnednnState* state, GetOnednnState(exec));
  return state->native_bf16() ? Forward<bfloat16>(exec, args, nullptr).Run()
                              : ThroughFloat(exec, args);
}

Status AttentionForwardRoundedCpu(const Exec& exec, const AttentionForwardArgs& args,
                                  const Float8Rounding& p, float* amax_p) {
  TE_RETURN_IF_ERROR(ValidateAttentionForward(args));
  Forward<float> forward(exec, args, &p);
  TE_RETURN_IF_ERROR(forward.Run());
  *amax_p = std::fmax(*amax_p, forward.amax());
  return OkStatus();
}

}  // namespace te
