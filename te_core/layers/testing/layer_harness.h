// Runs a layer and its reference side by side: output, and the gradient of every input and
// parameter.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "te_core/layers/testing/reference.h"
#include "te_core/layers/transformer_layer.h"

namespace te::test {

std::unique_ptr<Context> NewContext(int num_threads = 1, uint64_t seed = 7);

template <typename T>
T Must(StatusOr<T> value) {
  EXPECT_TRUE(value.ok()) << (value.ok() ? "" : value.status().message());
  if (!value.ok()) std::abort();
  return std::move(value).value();
}
void MustOk(const Status& status);

// A decoder layer as Llama's, small: 64 hidden, grouped queries, no dropout, no biases.
TransformerLayerOptions SmallLlamaLayer();

// A tensor of the context with these values (rounded to its dtype).
Tensor NewTensor(Context* context, DType dtype, const Shape& shape,
                 const std::vector<double>& values);
Tensor NewInt32(Context* context, const Shape& shape, const std::vector<int32_t>& values);
Tensor NewUInt8(Context* context, const Shape& shape, const std::vector<uint8_t>& values);
// Every parameter uniform in [-scale, scale]; norms' gammas that are not zero-centered 1 + that.
void Randomize(Layer* layer, uint64_t seed, double scale);

using Results = std::map<std::string, std::vector<double>>;

// One forward and backward pass.
struct LayerRun {
  Layer* layer = nullptr;
  ForwardArgs forward;  // output is set by the run
  Shape output_shape;
  DType output_dtype = DType::kFloat32;
  bool wants_dinput = true;
  bool doutput = true;  // false: losses, whose gradient is that of the sum
};
// Weights of the output in the scalar that is differentiated; 1 where run.doutput is false.
std::vector<double> OutputWeights(const LayerRun& run, uint64_t seed);
// "output"; with backward also "input", "key", "value" and the parameters' gradients by name.
Results Run(const LayerRun& run, const std::vector<double>& weights);
Results Infer(const LayerRun& run);

// The tensors that the reference takes: the run's inputs and the layer's parameters, as they are in
// memory (rounded).
Tensors TensorsOf(const LayerRun& run);
Results ReferenceResults(const Reference& reference, const Tensors& tensors,
                         const std::vector<double>& weights, bool wants_dinput);

// Each tensor: max |got - want| <= tolerance * max |want|; both have the same names. `max |want|`
// is at least `floor`: gradients that vanish by symmetry (a key bias under softmax) are compared to
// the size of their neighbours.
::testing::AssertionResult ResultsNear(const Results& got, const Results& want, double tolerance,
                                       double floor);
::testing::AssertionResult ResultsEqual(const Results& got, const Results& want);

// Rounding errors of u add up like a random walk within a sum of `length` terms and over
// `operations` of them in a row; 4 standard deviations, and u is at most doubled by an operation's
// own factor.
double Tolerance(DType dtype, int64_t length, int operations);

// Forward, gradients, and twins: a reference of which one value of one parameter (or of the input)
// is disturbed must disagree.
void ExpectMatchesReference(const LayerRun& run, const Reference& reference, int64_t length,
                            int operations, uint64_t seed);

}  // namespace te::test
