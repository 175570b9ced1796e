// What all layers do alike: checks with one wording, parameters, gradient buffers, the module tree.
// Internal to te_core/layers.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "te_core/layers/layer.h"

namespace te {

// kUnsupported unless float32 or bfloat16.
Status CheckParamsDType(const std::string& layer, DType dtype);
// kInvalidArgument unless value >= 1.
Status CheckPositive(const std::string& layer, const char* option, int64_t value);
// kInvalidArgument unless 0 <= p <= 1.
Status CheckProbability(const std::string& layer, const char* option, double p);
// kUnsupported for dropout (p > 0) where other ranks hold other tokens, for which the layer would
// draw the same numbers.
Status CheckDropoutOverRanks(const Context* context, const std::string& layer, const char* option,
                             double p);
Status CheckEpsilon(const std::string& layer, double epsilon);
Status CheckStd(const std::string& layer, const char* option, double std);

// Present (an empty tensor needs no address), dense, of `dtype`, rank >= 2, last dimension
// `features`.
Status CheckFeatures(const std::string& layer, const char* tensor, const ConstTensorView& view,
                     DType dtype, int64_t features);
// Present, dense, of exactly this dtype and shape.
Status CheckShape(const std::string& layer, const char* tensor, const ConstTensorView& view,
                  DType dtype, const Shape& shape);
// As CheckShape, for tensors that may be absent.
Status CheckOptional(const std::string& layer, const char* tensor, const ConstTensorView& view,
                     DType dtype, const Shape& shape);

// Which optional arguments a layer takes. What it does not take is refused by name, never ignored.
struct TakenArgs {
  bool residual = false;     // and dresidual
  bool norm_output = false;  // and dnorm_output
  bool key_value = false;
  bool labels = false;
  bool masks = false;
  bool rotary = false;  // and positions, start_position, cache
  bool input_codes = false;
  bool output_codes = false;  // and dinput_codes
};
Status CheckTaken(const std::string& layer, const TakenArgs& taken, const ForwardArgs& args);
Status CheckTaken(const std::string& layer, const TakenArgs& taken, const BackwardArgs& args);
// kFailedPrecondition when backward is called without what a forward pass saved.
Status CheckSaved(const std::string& layer, const Saved* saved);

// `shape` with another last dimension.
Shape WithLast(const Shape& shape, int64_t features);
// [..., F] dense as [T, F].
ConstTensorView Rows(const ConstTensorView& view);
TensorView Rows(const TensorView& view);

StatusOr<Parameter> NewParameter(Context* context, std::string name, DType dtype,
                                 const Shape& shape);
Status FillNormal(Context* context, float std, Parameter* parameter);
Status FillConstant(Context* context, float value, Parameter* parameter);
// Makes sure that the gradient's buffer exists; true: add to what it holds. A new buffer holds
// nothing to add to.
StatusOr<bool> PrepareGradient(Context* context, Parameter* parameter, bool accumulate);
Status CallGradientReady(const GradientReady* ready, Parameter* parameter);

// For layers whose dinput no kernel quantizes as it writes it: args.dinput.quant, if wanted, from
// args.dinput.dense.
Status QuantizeDinput(Context* context, const BackwardArgs& args);

// The arena of `saved`, or scratch in inference (where the caller has opened an ArenaScope).
Arena* ArenaFor(Context* context, Saved* saved);

// "weight=[3, 4]", slice by slice.
std::string DescribeParameter(const Parameter& parameter);
int64_t ParameterCount(const Parameter& parameter);

}  // namespace te
