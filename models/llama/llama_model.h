// LlamaForCausalLM over te_core's layers: parameters under two names, training in two halves,
// logits for tracing and generation.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/llama/config.h"
#include "models/llama/name_map.h"
#include "te_core/context.h"
#include "te_core/layers/embedding.h"
#include "te_core/layers/layer.h"
#include "te_core/layers/linear_cross_entropy.h"
#include "te_core/layers/norm.h"
#include "te_core/layers/rotary_position_embedding.h"
#include "te_core/saved.h"
#include "te_core/transformer/transformer_block.h"

namespace te {

// Two ways to compute the same function of the same parameters.
enum class LlamaPath {
  kTe,  // Transformer Engine's fused layers, chunked loss
  kHf,  // Hugging Face's operations one by one: the baseline
};
const char* Name(LlamaPath path);                           // "te", "hf"
StatusOr<LlamaPath> ParseLlamaPath(std::string_view name);  // kInvalidArgument lists both

// What a training pass keeps of a decoder layer's forward pass. Megatron's recompute_granularity.
enum class RecomputeGranularity {
  kNone,  // all that its backward pass reads
  kFull,  // its input: the layer runs again before its backward pass (recomputed_layer.h)
};
const char* Name(RecomputeGranularity granularity);  // "none", "full"
// kInvalidArgument lists both.
StatusOr<RecomputeGranularity> ParseRecomputeGranularity(std::string_view name);

struct LlamaModelOptions {
  DType params_dtype = DType::kFloat32;  // or kBFloat16: storage and arithmetic
  LlamaPath path = LlamaPath::kTe;
  // LinearCrossEntropyOptions::max_logits_bytes; 0: its default.
  size_t max_logits_bytes = 0;
  RecomputeGranularity recompute_granularity = RecomputeGranularity::kNone;
  // Of kFull: the first N decoder layers (Megatron's recompute_method "block"); 0: all.
  int64_t recompute_num_layers = 0;
};

// One micro-batch in host memory, row-major [batch, sequence].
struct LlamaBatch {
  int64_t batch = 0;
  int64_t sequence = 0;
  std::span<const int32_t> input_ids;
  std::span<const int32_t> labels;  // unshifted, as Hugging Face takes them; kIgnoreIndex (-100):
                                    // not counted. May be empty
  std::span<const uint8_t> attention_mask;  // 1 = keep, 0 = padding. Empty: all 1
};
// Whether a loss over the batch counts any label: a row's first one, which no position predicts,
// never does. Rows are of one token or more.
bool CountsAnyLabel(const LlamaBatch& batch);

// A tensor of the checkpoint and the rows of ours that it is.
struct LlamaTensor {
  LlamaTensorName name;
  Parameter* parameter = nullptr;
  int64_t row_begin = 0;  // within the parameter's buffer

  // Undefined where the parameter exists in FP8 alone (te_core/quantization/fp8_only_weight.h).
  TensorView value() const {
    return parameter->value.defined()
               ? parameter->value.view().Slice(0, row_begin, row_begin + name.shape[0])
               : TensorView();
  }
  // Undefined while the parameter has no gradient.
  TensorView grad() const {
    return parameter->grad.defined()
               ? parameter->grad.view().Slice(0, row_begin, row_begin + name.shape[0])
               : TensorView();
  }
};

struct LlamaBackwardOptions {
  bool accumulate_gradients =
      false;  // add to the parameters' gradients instead of overwriting them
  const GradientReady* gradient_ready = nullptr;
  // Gradient buffers come out of the pass's own memory, each when its layer's turn comes and the
  // activations of later layers have gone: the peak is that of the parameters' gradients alone or
  // of the activations, not of both. They are the parameters' until the pass is released. Excludes
  // accumulate_gradients.
  bool lend_gradients = false;
};

// Thread-compatible. The context must outlive it. Positions are 0 .. sequence - 1 in every row,
// whatever the mask says, as in Hugging Face's forward pass: pad on the right.
class LlamaModel {
 public:
  // Allocates every parameter, contents undefined: load or initialize them. Within a QuantizedInit
  // of the context the decoder layers' matrices exist in FP8 alone, as its recipe says; embedding,
  // lm_head, norms and biases never do. (The hf path cannot: kUnsupported.)
  static StatusOr<std::unique_ptr<LlamaModel>> Create(Context* context, const LlamaConfig& config,
                                                      const LlamaModelOptions& options);
  ~LlamaModel();
  LlamaModel(const LlamaModel&) = delete;
  LlamaModel& operator=(const LlamaModel&) = delete;

  const LlamaConfig& config() const { return config_; }
  const LlamaModelOptions& options() const { return options_; }
  // How many decoder layers run again before their backward pass: the first ones.
  int64_t recomputed_layers() const {
    if (options_.recompute_granularity == RecomputeGranularity::kNone) return 0;
    return options_.recompute_num_layers == 0 ? config_.num_hidden_layers
                                              : options_.recompute_num_layers;
  }
  Context* context() const { return context_; }

  // Every tensor of a Hugging Face checkpoint of this config, in its order.
  const std::vector<LlamaTensor>& tensors() const { return tensors_; }
  const LlamaTensor* FindTensor(std::string_view hf_name) const;  // null: none
  // One entry a buffer, each once (a tied embedding, too): what an optimizer works on. Order of the
  // layers.
  const std::vector<Parameter*>& parameters() const { return parameters_; }
  // Full Transformer Engine name of a buffer of parameters(), the same order.
  const std::vector<std::string>& parameter_names() const { return parameter_names_; }
  // Gives every trainable parameter a gradient buffer, contents undefined.
  Status EnsureGradients();
  // The same for updates inside the backward pass (AdamWOptimizer::UpdateNow): the matrices take
  // turns in one buffer of the largest one's size, and a gradient is there only while its
  // gradient_ready runs. A tied embedding has a buffer of its own, as vectors have.
  Status ShareGradients();
  // As Hugging Face initializes: weights normal(0, initializer_range), norms 1, biases 0. Draws
  // from the context's seed, one random stream a tensor in the order of tensors(), whatever is
  // initialized: one tensor alone gets the same numbers.
  Status Initialize(const LlamaTensor& tensor);
  Status InitializeAll();

  // A forward pass in flight: its activations. Releasing it frees the slot.
  using Pass = SavedPool::Handle;
  // Check, Prepare and RunForward.
  StatusOr<Pass> Forward(const LlamaBatch& batch);
  // kInvalidArgument names a token or label outside the vocabulary, a batch that is empty, spans of
  // the wrong size.
  Status Check(const LlamaBatch& batch) const;
  // Copies a batch that Check takes to the device. The slot's addresses depend on the batch's shape
  // alone (and on whether it has labels and padding), as long as nothing is allocated in between.
  StatusOr<Pass> Prepare(const LlamaBatch& batch);
  // Runs the layers up to the final norm: device work alone, which can be recorded.
  Status RunForward(Pass* pass);
  // What the work of a prepared pass depends on besides the parameters: equal keys, equal addresses
  // and kernels.
  std::string KeyOf(const Pass& pass) const;
  // Adds the sum of the losses and the count of counted shifted labels to StepScalars::loss_sum and
  // ::token_count, without gradients: evaluation. The batch had labels.
  Status EvaluateLoss(Pass* pass);
  // Adds the count of counted shifted labels to StepScalars::token_count, alone. Device work.
  Status CountLabels(Pass* pass);
  // The losses as EvaluateLoss, and the gradients of their SUM: into the parameters' gradients.
  // (Each chunk of logits exists once, so loss and gradient are one call.) A layer's activations
  // die as its gradients are born. Once a pass, and no other call on it after; several passes may
  // be in flight, in any order of Backward.
  Status Backward(Pass* pass, const LlamaBackwardOptions& options);
  // Forward and Backward.
  Status RunMicroBatch(const LlamaBatch& batch, const LlamaBackwardOptions& options);

  // Of a pass before its Backward: input of decoder layer i, or with i == num_hidden_layers the
  // final norm's output: params_dtype [B, S, H].
  ConstTensorView HiddenState(const Pass& pass, int64_t index) const;
  // lm_head over the final norm's output of such a pass: `out` float32 [B S, V].
  Status Logits(const Pass& pass, TensorView out);

  // Inference: logits float32 [B, V] of the last position of each row of `ids` ([B, S], host),
  // after the tokens in `caches` (one a layer; empty: none), which grow by S. The hf path has no
  // cache: kUnsupported with one. Without caches, `at_once` above 0 says that so many tokens came
  // at once and the others one at a time: RoPE's dynamic scaling then is that of a pass with caches
  // (RotaryPositionEmbedding::GrownTable).
  Status Infer(int64_t batch, int64_t sequence, std::span<const int32_t> ids,
               std::span<KeyValueCache> caches, TensorView logits, int64_t at_once = 0);
  // Empty caches for `batch` rows of up to `capacity` tokens.
  StatusOr<std::vector<KeyValueCache>> NewCaches(int64_t batch, int64_t capacity);

  // The module tree in the style of PyTorch's repr.
  std::string Describe() const;

 private:
  struct PassState;
  LlamaModel(Context* context, const LlamaConfig& config, const LlamaModelOptions& options);
  Status Build();
  Status MakeTensors();
  Status Upload(const LlamaBatch& batch, Saved* root, PassState* state);
  Status Head(const LinearCrossEntropyArgs& args);
  // The gradient buffers of `layer`'s parameters, out of the arena's end.
  Status LendGradients(Layer* layer, Arena* arena);
  // The layer that owns the parameters of decoder layer `index`.
  Layer* owner(size_t index) const {
    return hf_owners_.empty() ? decoder_->layer(index) : hf_owners_[index].get();
  }

  Context* context_;
  LlamaConfig config_;
  LlamaModelOptions options_;
  std::unique_ptr<RotaryPositionEmbedding> rotary_;
  std::unique_ptr<Embedding> embedding_;
  std::vector<std::unique_ptr<Layer>> hf_owners_;  // hf path alone: of the decoder's parameters
  std::unique_ptr<TransformerBlock> decoder_;
  std::unique_ptr<Norm> norm_;
  std::unique_ptr<LinearCrossEntropy> head_;  // owns lm_head.weight, or borrows the embedding's
  std::vector<LlamaTensor> tensors_;
  std::vector<uint32_t> random_streams_;  // of Initialize, one a tensor
  std::vector<Parameter*> parameters_;
  std::vector<std::string> parameter_names_;
  SavedPool pool_;
  Tensor shared_gradient_;
};

}  // namespace te
