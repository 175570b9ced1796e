// The three quantized tensors of a linear layer's GEMMs: input, weight, gradient of the output. The
// one place where layers meet the recipe; Projection and LinearCrossEntropy are made with it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "te_core/context.h"
#include "te_core/parameter.h"

namespace te {

// Of a sink that has been written.
inline Operand OperandOf(const Sink& written) {
  Operand out(written.dense);
  out.quant = written.quant;
  return out;
}

// Thread-compatible; the context must outlive it. Rows are tokens (output features for the weight).
class GemmQuantizers {
 public:
  GemmQuantizers() = default;
  ~GemmQuantizers();
  GemmQuantizers(const GemmQuantizers&) = delete;
  GemmQuantizers& operator=(const GemmQuantizers&) = delete;

  // `name`: the module's full name, which rules by name and saved states go by.
  void Init(Context* context, std::string module_type, std::string name);

  // The running scope's word. `saved`: a backward pass will follow.
  GemmPass NewPass(bool saved) const;

  // Where the producer of the input [rows, columns] writes it. `dense`, when defined, is written in
  // any case; else a dense tensor exists only if the recipe keeps one. `wgrad`: a product of the
  // backward pass will read it.
  StatusOr<Sink> InputSink(const GemmPass& pass, Arena* arena, TensorView dense, DType dtype,
                           int64_t rows, int64_t columns, bool wgrad);
  // The same for the gradient of the output. `dense_wanted`: its values are read densely, too.
  StatusOr<Sink> GradOutputSink(const GemmPass& pass, Arena* arena, bool dense_wanted, DType dtype,
                                int64_t rows, int64_t columns, bool wgrad);
  // Of tensors that exist densely: casts them, when the pass quantizes, unless `written` (a spec of
  // GradOutputSpec that a producer has filled) has done so.
  StatusOr<Sink> Input(const GemmPass& pass, Arena* arena, ConstTensorView dense, bool wgrad);
  StatusOr<Sink> GradOutput(const GemmPass& pass, Arena* arena, ConstTensorView dense,
                            const QuantSpec& written, bool wgrad);
  // What a producer of a dense gradient can fill beside it; format kNone: nothing.
  StatusOr<QuantSpec> GradOutputSpec(const GemmPass& pass, Arena* arena, int64_t rows,
                                     int64_t columns, bool wgrad);

  // A weight [rows, columns] that exists in FP8 alone, contents undefined until they are written
  // (fp8_only_weight.h), when the context's QuantizedInit asks for it; else null. Gradients, and
  // the value while it is written, are of `dtype`. kUnsupported: a recipe that needs other codes
  // than E4M3 with one scale for the whole tensor.
  StatusOr<std::unique_ptr<Parameter>> NewFp8OnlyWeight(std::string name, DType dtype, int64_t rows,
                                                        int64_t columns);
  // The weight as this pass's product `kind` reads it, kFprop or kDgrad: its quantized copies are
  // made when there are none, or when value or scale have changed since. dgrad reads what forward
  // has used, or what the recipe's backward_override puts in its place. What is made for this
  // product alone (the transposed codes of a weight that exists in FP8 alone, dequantized values)
  // lies in the context's scratch: the caller holds an ArenaScope.
  StatusOr<Operand> Weight(const GemmPass& pass, GemmKind kind, Parameter* weight);
  // The same for the input of wgrad.
  StatusOr<Operand> InputOfBackward(const GemmPass& pass, const Sink& input, DType dtype,
                                    int64_t rows, int64_t columns);

  // Of a calibrating pass: the amax of a dense tensor enters the history. Nothing otherwise.
  Status CalibrateInput(const GemmPass& pass, ConstTensorView dense);
  Status CalibrateWeight(const GemmPass& pass, const Parameter& weight);
  Status CalibrateGradOutput(const GemmPass& pass, ConstTensorView dense);
  // To be called when the module's backward pass is over.
  Status EndBackward(const GemmPass& pass);

 private:
  enum Role { kInput = 0, kWeight = 1, kGradOutput = 2, kRoles = 3 };
  struct State {
    ScalingSlot slot;
    std::optional<uint32_t> random_stream;
  };
  // Memory for a QuantSpec: from an arena, or tensors of its own.
  class Source;

  QuantizerRole RoleOf(Role role) const;
  StatusOr<QuantSpec> Spec(Role role, const GemmPass& pass, Source* source, int64_t rows,
                           int64_t columns, bool rowwise, bool columnwise);
  Status UseSlot(Role role, const GemmPass& pass, const TensorQuantization& quantization,
                 QuantSpec* spec);
  StatusOr<Operand> QuantizedWeight(const GemmPass& pass, GemmKind kind, Parameter* weight);
  // In the second run of a forward pass: whether the weight's copy is what the first run has read.
  bool IsOfFirstRun(const QuantizedCopy& copy, const Parameter& weight) const;
  StatusOr<Operand> WeightOfFirstRun(const GemmPass& pass, const Parameter& weight);
  StatusOr<Operand> Fp8OnlyWeight(const GemmPass& pass, GemmKind kind, const Parameter& weight);
  Status Calibrate(Role role, const GemmPass& pass, ConstTensorView dense);
  StatusOr<Operand> OfBackward(const GemmPass& pass, const Operand& forward, DType dtype,
                               int64_t rows, int64_t columns);

  Context* context_ = nullptr;
  std::string module_type_;
  std::string name_;
  State states_[kRoles];
};

// Makes a weight's quantized copies hold its present value, if there are copies and they do not.
Status RefreshQuantizedCopy(Context* context, Parameter* weight);

}  // namespace te
