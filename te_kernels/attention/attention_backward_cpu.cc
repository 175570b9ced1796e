#include <algorithm>
#include <cmath>
#include <type_traits>

#include "te_kernels/attention/attention.h"
#include "te_kernels/attention/attention_blocks.h"
#include "te_kernels/attention/attention_float_cpu.h"
#include "te_kernels/attention/attention_rows.h"
#include "te_kernels/cast/in_float.h"

namespace te {
namespace {

enum Product { kScores = 0, kDProbabilities = 1, kDv = 2, kDq = 3, kDk = 4, kProducts = 5 };

// One task = one (batch, group): its heads and blocks run in a fixed order and add to the group's
// dk and dv, so that the number of threads does not change a bit. With p = softmax(s), o = drop(p)
// v and D_i = dout_i . out_i (Dao et al. 2022, appendix B.2):
//   dv += drop(p)^T dout;  ds = p * (drop'(dout v^T) - D) * scale;  dq = ds k;  dk += ds^T q
// With roundings to FP8 (both or none), ds and drop(p) are what they leave.
template <typename T>
class Backward {
 public:
  Backward(const Exec& exec, const AttentionBackwardArgs& args,
           const Float8Rounding* probability_rounding, const Float8Rounding* dscore_rounding)
      : exec_(exec),
        args_(args),
        probability_rounding_(probability_rounding),
        dscore_rounding_(dscore_rounding),
        num_keys_(args.k.dim(1)),
        random_(args.random.Resolved()) {}

  Status Run() {
    blocks_ = CutAttention(args_.mask, args_.q.dim(1), num_keys_);
    ArenaScope scope(exec_.scratch);
    TE_RETURN_IF_ERROR(Plan());
    const int64_t tasks = args_.k.dim(0) * args_.k.dim(2);
    TaskErrors errors(static_cast<int>(scratch_.size()));
    OmpThreads one(1);  // inside the region each product runs on its own thread
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast <int>(scratch_.size()))
    for (int64_t task = 0; task < tasks; ++task)
      errors.Keep(Group(task / args_.k.dim(2), task % args_.k.dim(2)));
    return errors.First();
  }

  float amax() const {
    float largest = 0;
    for (const AttentionScratch<T>& one : scratch_) largest = std::max(largest, one.amax);
    return largest;
  }

 private:
  Status Plan() {
    TE_ASSIGN_OR_RETURN(OnednnState * state, GetOnednnState(exec_));
    size_t scratchpad = 0;
    int64_t elements = 1;
    const int64_t d = args_.k.dim(3), dv = args_.v.dim(3);
    for (AttentionBlock& block : blocks_) {
      if (block.keys == 0) continue;
      elements = std::max(elements, block.rows * block.keys);
      const ConstTensorView q = Head(args_.q, 0, 0, block.query, block.rows);
      const ConstTensorView k = Head(args_.k, 0, 0, block.key, block.keys);
      const ConstTensorView v = Head(args_.v, 0, 0, block.key, block.keys);
      const ConstTensorView dout = Head(args_.dout, 0, 0, block.query, block.rows);
      const ConstTensorView dq = Head(args_.dq, 0, 0, block.query, block.rows);
      const ConstTensorView scores(nullptr, DType::kFloat32, {block.rows, block.keys});
      const ConstTensorView rounded(nullptr, DTypeOf<T>::value, {block.rows, block.keys});
      const ConstTensorView dk_sum(nullptr, DType::kFloat32, {block.keys, d});
      const ConstTensorView dv_sum(nullptr, DType::kFloat32, {block.keys, dv});
      const MatmulSpec specs[kProducts] = {
          {.a = q, .b = k.Transpose(0, 1), .d = scores},
          {.a = dout, .b = v.Transpose(0, 1), .d = scores},
          {.a = rounded.Transpose(0, 1), .b = dout, .d = dv_sum, .accumulate = true},
          {.a = rounded, .b = k, .d = dq},
          {.a = rounded.Transpose(0, 1), .b = q, .d = dk_sum, .accumulate = true},
      };
      for (int product = 0; product < kProducts; ++product) {
        TE_ASSIGN_OR_RETURN(block.products[product], state->Get(specs[product]));
        scratchpad = std::max(scratchpad, block.products[product]->scratchpad_bytes());
      }
    }
    scratch_.resize(std::max(1, exec_.num_threads));
    for (AttentionScratch<T>& mine : scratch_) {
      TE_RETURN_IF_ERROR(AllocateArray(exec_, elements, &mine.scores));
      TE_RETURN_IF_ERROR(AllocateArray(exec_, elements, &mine.dprobabilities));
      TE_RETURN_IF_ERROR(AllocateArray(exec_, elements, &mine.probabilities));
      TE_RETURN_IF_ERROR(AllocateArray(exec_, elements, &mine.dscores));
      TE_RETURN_IF_ERROR(AllocateArray(exec_, num_keys_ * d, &mine.dk));
      TE_RETURN_IF_ERROR(AllocateArray(exec_, num_keys_ * dv, &mine.dv));
      TE_ASSIGN_OR_RETURN(mine.scratchpad, exec_.scratch->Allocate(scratchpad));
    }
    return OkStatus();
  }

  Status Group(int64_t batch, int64_t group) {
    AttentionScratch<T>& mine = scratch_[ThreadIndex()];
    std::fill_n(mine.dk, num_keys_ * args_.k.dim(3), 0.0f);
    std::fill_n(mine.dv, num_keys_ * args_.v.dim(3), 0.0f);
    const int64_t heads = args_.q.dim(2) / args_.k.dim(2);
    for (int64_t head = group * heads; head < (group + 1) * heads; ++head) {
      for (const AttentionBlock& block : blocks_)
        TE_RETURN_IF_ERROR(Block(batch, head, group, block, mine));
    }
    StoreSum(mine.dk, Head(args_.dk, batch, group, 0, num_keys_));
    StoreSum(mine.dv, Head(args_.dv, batch, group, 0, num_keys_));
    return OkStatus();
  }

  Status Block(int64_t batch, int64_t head, int64_t group, const AttentionBlock& block,
               AttentionScratch<T>& mine) {
    const TensorView dq = Head(args_.dq, batch, head, block.query, block.rows);
    if (block.keys == 0) {
      for (int64_t i = 0; i < block.rows; ++i)
        std::fill_n(dq.Select(0, i).template as<T>(), dq.dim(1), T(0.0f));
      return OkStatus();
    }
    const ConstTensorView q = Head(args_.q, batch, head, block.query, block.rows);
    const ConstTensorView dout = Head(args_.dout, batch, head, block.query, block.rows);
    const ConstTensorView out = Head(args_.out, batch, head, block.query, block.rows);
    const ConstTensorView k = Head(args_.k, batch, group, block.key, block.keys);
    const ConstTensorView v = Head(args_.v, batch, group, block.key, block.keys);
    TE_RETURN_IF_ERROR(block.products[kScores]->Execute(q.data(), k.data(), nullptr, mine.scores,
                                                        mine.scratchpad));
    TE_RETURN_IF_ERROR(block.products[kDProbabilities]->Execute(
        dout.data(), v.data(), nullptr, mine.dprobabilities, mine.scratchpad));
    for (int64_t i = 0; i < block.rows; ++i) {
      Row(batch, head, block, i, DotRows(dout.Select(0, i), out.Select(0, i)), mine);
    }
    TE_RETURN_IF_ERROR(block.products[kDv]->Execute(mine.probabilities, dout.data(), nullptr,
                                                    mine.dv + block.key * args_.v.dim(3),
                                                    mine.scratchpad));
    TE_RETURN_IF_ERROR(
        block.products[kDq]->Execute(mine.dscores, k.data(), nullptr, dq.data(), mine.scratchpad));
    return block.products[kDk]->Execute(mine.dscores, q.data(), nullptr,
                                        mine.dk + block.key * args_.k.dim(3), mine.scratchpad);
  }

  // Row i of the block: probabilities (dropped, rounded) and dscores from scores, dprobabilities
  // and D.
  void Row(int64_t batch, int64_t head, const AttentionBlock& block, int64_t i, float dot,
           AttentionScratch<T>& mine) {
    const int64_t query = block.query + i;
    const int64_t keys = block.keys;
    float* scores = mine.scores + i * keys;
    float* dp = mine.dprobabilities + i * keys;
    T* probabilities = mine.probabilities + i * keys;
    T* dscores = mine.dscores + i * keys;
    const ConstTensorView& lse_view = args_.lse;
    const float lse = lse_view.as<float>()[batch * lse_view.stride(0) + head * lse_view.stride(1) +
                                           query * lse_view.stride(2)];
    if (lse == -std::numeric_limits<float>::infinity()) {  // every key masked
      std::fill_n(probabilities, keys, T(0.0f));
      std::fill_n(dscores, keys, T(0.0f));
      return;
    }
    MaskRow(MaskedRow(args_.mask, batch, head, query, args_.q.dim(1), num_keys_), block.key, keys,
            scores);
    const float scale = args_.softmax_scale;
    simd::ForEachVector(
        keys, [&](int64_t j, int64_t count) __attribute__((always_inline)) {
          simd::Store(simd::Exp(simd::Load(scores + j, count) * scale - lse), scores + j, count);
        });
    const bool drops = args_.dropout > 0;
    const uint64_t first =
        RandomIndex(args_.q, num_keys_, batch, head, query) + static_cast<uint64_t>(block.key);
    if (drops) DropRow(random_, first, args_.dropout, keys, dp);
    simd::ForEachVector(
        keys, [&](int64_t j, int64_t count) __attribute__((always_inline)) {
          simd::Store(simd::Load(scores + j, count) * (simd::Load(dp + j, count) - dot) * scale,
                      dscores + j, count);
        });
    if (drops) DropRow(random_, first, args_.dropout, keys, scores);
    if constexpr (std::is_same_v<T, float>) {
      if (dscore_rounding_ != nullptr) {
        float forward_amax = 0;
        dscore_rounding_->Row(dscores, keys, &mine.amax);
        probability_rounding_->Row(scores, keys, &forward_amax);
      }
    }
    RoundRow(scores, keys, probabilities);
  }

  static float DotRows(const ConstTensorView& a, const ConstTensorView& b) {
    const T* x = a.as<T>();
    const T* y = b.as<T>();
    simd::Floats sums = {};
    simd::ForEachVector(
        a.dim(0), [&](int64_t j, int64_t count) __attribute__((always_inline)) {
          sums += simd::Load(x + j, count) * simd::Load(y + j, count);
        });
    return simd::Sum(sums);
  }

  static void StoreSum(const float* sum, const TensorView& out) {
    for (int64_t j = 0; j < out.dim(0); ++j) {
      T* row = out.Select(0, j).template as<T>();
      RoundRow(sum + j * out.dim(1), out.dim(1), row);
    }
  }

  const Exec& exec_;
  const AttentionBackwardArgs& args_;
  const Float8Rounding* probability_rounding_;
  const Float8Rounding* dscore_rounding_;
  int64_t num_keys_;
  RandomState random_;
  std::vector<AttentionBlock> blocks_;
  std::vector<AttentionScratch<T>> scratch_;
};

Status ThroughFloat(const Exec& exec, const AttentionBackwardArgs& args) {
  ArenaScope scope(exec.scratch);
  AttentionBackwardArgs in_float = args;
  const struct {
    const ConstTensorView& from;
    ConstTensorView& to;
  } inputs[] = {{args.q, in_float.q},
                {args.k, in_float.k},
                {args.v, in_float.v},
                {args.out, in_float.out},
                {args.dout, in_float.dout}};
  for (const auto& input : inputs) {
    TE_ASSIGN_OR_RETURN(input.to, InFloat(exec, input.from));
  }
  const struct {
    const TensorView& to;
    TensorView& in_float;
  } outputs[] = {{args.dq, in_float.dq}, {args.dk, in_float.dk}, {args.dv, in_float.dv}};
  for (const auto& output : outputs) {
    TE_ASSIGN_OR_RETURN(output.in_float,
                        exec.scratch->Allocate(DType::kFloat32, output.to.shape()));
  }
  TE_RETURN_IF_ERROR(AttentionBackwardCpu(exec, in_float));
  for (const auto& output : outputs)
    TE_RETURN_IF_ERROR(CastCpu(exec, {.x = output.in_float, .y = output.to}));
  return OkStatus();
}

}  // namespace

Status AttentionBackwardCpu(const Exec& exec, const AttentionBackwardArgs& args) {
  TE_RETURN_IF_ERROR(ValidateAttentionBackward(args));
  if (args.q.elements() == 0 && args.k.elements() == 0) return OkStatus();
  if (args.q.dtype() == DType::kFloat32) return Backward<float>(exec, args, nullptr, nullptr).Run();
  TE_ASSIGN_OR_RETURN(const OnednnState* state, GetOnednnState(exec));
  return state->native_bf16() ? Backward<bfloat16>(exec, args, nullptr, nullptr).Run()
                              : ThroughFloat(exec, args);
}

Status AttentionBackwardRoundedCpu(const Exec& exec, const AttentionBackwardArgs& args,
                                   const Float8Rounding& p, const Float8Rounding& ds,
                                   float* amax_ds) {
  TE_RETURN_IF_ERROR(ValidateAttentionBackward(args));
  Backward<float> backward(exec, args, &p, &ds);
  TE_RETURN_IF_ERROR(backward.Run());
  *amax_ds = std::fmax(*amax_ds, backward.amax());
  return OkStatus();
}

}  // namespace te
