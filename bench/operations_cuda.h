// The operations of a Llama step on a GPU, one row of a table each. Families of operations stand in
// files of their own: operations_memory_cuda.cc, _float8_, _adamw_, _attention_ and _gemm_.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/operation_timer.h"
#include "bench/quantized_tensor.h"

namespace te::bench {

struct OperationsOptions {
  std::string filter;
  std::string json;
  bool hot = false;
  bool attention_knobs = false;
  std::vector<int64_t> tokens = {2048, 4096};
};

struct BenchModelShape {
  const char* name;
  int64_t hidden, ffn, heads, groups, head_dim, vocab;
};

struct OperationRow {
  std::string operation, shape;
  double seconds = 0;
  double rate = 0;     // bytes or FLOP a second
  double ceiling = 0;  // likewise; 0: none
  bool flops = false;
  double copy_of_its_size = 0;  // of memory operations: a copy that moves as many bytes
  // Of products: rate / ceiling again, ours and the candidates that are fastest from cold looped
  // until the card has found its clock.
  double ratio_at_the_limit = 0;
};

// Thread-compatible. `timer` and `options` must outlive it.
class OperationsBench {
 public:
  OperationsBench(OperationTimer* timer, const OperationsOptions& options)
      : timer_(timer), options_(options) {}

  // Times and prints every row that the filter wants.
  Status Run();
  const std::vector<OperationRow>& rows() const { return rows_; }

 private:
  // Tensors that live as long as the call that holds them.
  using Buffers = std::shared_ptr<std::vector<Tensor>>;

  // E4M3 copies of matrices of one shape in both orientations, under one scale known beforehand.
  struct Float8Copies {
    Shape shape;
    Buffers rowwise, columnwise;
    Buffers numbers;  // scale, scale_inv and amax
    QuantSpec Spec(int i) const;
  };

  Status Norms(const BenchModelShape& model, int64_t tokens);
  Status SwiGlu(const BenchModelShape& model, int64_t tokens);
  Status Rope(const BenchModelShape& model, int64_t tokens);
  Status Losses(const BenchModelShape& model, int64_t tokens);
  Status Embeddings(const BenchModelShape& model, int64_t tokens);
  Status Elementwise(const BenchModelShape& model, int64_t tokens);

  Status Float8Norms(const BenchModelShape& model, int64_t tokens);
  Status Float8SwiGlu(const BenchModelShape& model, int64_t tokens);
  Status Float8Attention(const BenchModelShape& model, int64_t tokens);

  Status Optimizer(const BenchModelShape& model);
  Status Float8Optimizer(const BenchModelShape& model, Rounding rounding, bool only_float8);

  Status Attention(const BenchModelShape& model, int64_t tokens, int64_t sequence);
  Status AgainstPlans(const char* operation, const std::string& shape, double flops,
                      const OperationTimer::Call& call, int rotations);

  Status Gemms(const BenchModelShape& model, int64_t tokens);
  Status Gemm(const BenchModelShape& model, const char* layer, GemmKind kind, int64_t tokens,
              int64_t out_features, int64_t in_features);
  Status Fp8Gemms(const BenchModelShape& model, const char* layer, GemmKind kind, int64_t tokens,
                  int64_t out_features, int64_t in_features);
  StatusOr<std::vector<QuantizedTensor>> Quantized(const Shape& shape, int count,
                                                   QuantFormat format, QuantScaling scaling,
                                                   Orientation orientation);

  const KernelTable& run() const { return timer_->context()->kernels(); }
  const Exec& exec() const { return timer_->context()->exec(); }
  bool Wanted(const std::string& operation, const std::string& shape) const;
  void Add(OperationRow row);
  // A row of an operation that must read and write `bytes` once. `prepare`: the call on so many
  // buffers.
  Status Memory(const char* operation, const BenchModelShape& model, int64_t tokens, int64_t bytes,
                const std::function<StatusOr<OperationTimer::Call>(int)>& prepare);
  StatusOr<Buffers> Random(const Shape& shape, int count, DType dtype = DType::kBFloat16);
  StatusOr<Float8Copies> Float8(const Shape& shape, int count);
  static TensorView View(const Buffers& buffers, int i) {
    return (*buffers)[static_cast<size_t>(i)].view();
  }

  OperationTimer* timer_;
  const OperationsOptions& options_;
  double copy_ = 0;                   // bytes a second
  std::map<int64_t, double> copies_;  // by their bytes
  std::vector<OperationRow> rows_;
};

}  // namespace te::bench
