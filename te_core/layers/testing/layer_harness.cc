#include "te_core/layers/testing/layer_harness.h"

#include <algorithm>
#include <cmath>

#include "te_kernels/testing/host_tensor.h"

namespace te::test {

std::unique_ptr<Context> NewContext(int num_threads, uint64_t seed) {
  ContextOptions options;
  options.num_threads = num_threads;
  options.seed = seed;
  return Must(Context::Create(options));
}

void MustOk(const Status& status) { ASSERT_TRUE(status.ok()) << status.message(); }

TransformerLayerOptions SmallLlamaLayer() {
  TransformerLayerOptions options;
  options.hidden_size = 64;
  options.ffn_hidden_size = 96;
  options.num_attention_heads = 4;
  options.num_gqa_groups = 2;
  options.normalization = NormalizationKind::kRmsNorm;
  options.activation = ActivationKind::kSwiglu;
  options.hidden_dropout = 0;
  options.attention_dropout = 0;
  options.fuse_qkv_params = false;
  options.bias = false;
  return options;
}

Tensor NewTensor(Context* context, DType dtype, const Shape& shape,
                 const std::vector<double>& values) {
  Tensor tensor = Must(context->NewTensor(dtype, shape));
  FromDoubles(values, tensor.view());
  return tensor;
}

Tensor NewInt32(Context* context, const Shape& shape, const std::vector<int32_t>& values) {
  Tensor tensor = Must(context->NewTensor(DType::kInt32, shape));
  std::copy(values.begin(), values.end(), tensor.view().as<int32_t>());
  return tensor;
}

Tensor NewUInt8(Context* context, const Shape& shape, const std::vector<uint8_t>& values) {
  Tensor tensor = Must(context->NewTensor(DType::kUInt8, shape));
  std::copy(values.begin(), values.end(), tensor.view().as<uint8_t>());
  return tensor;
}

void Randomize(Layer* layer, uint64_t seed, double scale) {
  layer->VisitParameters("", [&](const std::string& name, Parameter& parameter) {
    std::vector<double> values =
        UniformDoubles(parameter.value.view().elements(), seed++, -scale, scale);
    // Gammas are the vectors that start at 1.
    const bool gamma = name.ends_with("layer_norm_weight") ||
                       (name.ends_with("weight") && parameter.value.shape().rank() == 1);
    if (gamma && ToDoubles(parameter.value.view())[0] == 1) {
      for (double& v : values) v += 1;
    }
    FromDoubles(values, parameter.MutableValue());
  });
}

std::vector<double> OutputWeights(const LayerRun& run, uint64_t seed) {
  const int64_t n = run.output_shape.elements();
  if (!run.doutput) return std::vector<double>(static_cast<size_t>(n), 1);
  std::vector<double> weights = UniformDoubles(n, seed);
  Tensor rounded = NewTensor(run.layer->context(), run.output_dtype, run.output_shape, weights);
  return ToDoubles(rounded.view());
}

Results Run(const LayerRun& run, const std::vector<double>& weights) {
  Context* context = run.layer->context();
  SavedPool pool(context->memory());
  SavedPool::Handle slot = Must(pool.Acquire());
  Tensor output = NewTensor(context, run.output_dtype, run.output_shape,
                            std::vector<double>(weights.size(), NAN));
  Tensor doutput = NewTensor(context, run.output_dtype, run.output_shape, weights);
  ForwardArgs forward = run.forward;
  forward.output = output.view();
  MustOk(run.layer->Forward(forward, &slot->root));
  Results results;
  results["output"] = ToDoubles(output.view());
  BackwardArgs backward;
  if (run.doutput) backward.doutput = doutput.view();
  const auto like = [&](const ConstTensorView& view) {
    return NewTensor(context, view.dtype(), view.shape(),
                     std::vector<double>(static_cast<size_t>(view.elements()), NAN));
  };
  Tensor dinput, dkey, dvalue;
  if (run.wants_dinput) {
    dinput = like(forward.input.dense);
    backward.dinput = dinput.view();
  }
  if (forward.attention.key.defined()) {
    dkey = like(forward.attention.key);
    dvalue = like(forward.attention.value);
    backward.attention.dkey = dkey.view();
    backward.attention.dvalue = dvalue.view();
  }
  for (Parameter* parameter : run.layer->Parameters()) {
    MustOk(parameter->EnsureGrad(context->memory()));
    FromDoubles(std::vector<double>(static_cast<size_t>(parameter->grad.view().elements()), NAN),
                parameter->grad.view());
  }
  MustOk(run.layer->Backward(backward, &slot->root));
  if (run.wants_dinput) results["input"] = ToDoubles(dinput.view());
  if (forward.attention.key.defined()) {
    results["key"] = ToDoubles(dkey.view());
    results["value"] = ToDoubles(dvalue.view());
  }
  for (const NamedParameter& p : run.layer->NamedParameters())
    results[p.name] = ToDoubles(p.grad());
  return results;
}

Results Infer(const LayerRun& run) {
  Context* context = run.layer->context();
  Tensor output =
      NewTensor(context, run.output_dtype, run.output_shape,
                std::vector<double>(static_cast<size_t>(run.output_shape.elements()), NAN));
  ForwardArgs forward = run.forward;
  forward.output = output.view();
  MustOk(run.layer->Forward(forward, nullptr));
  return {{"output", ToDoubles(output.view())}};
}

Tensors TensorsOf(const LayerRun& run) {
  Tensors tensors;
  const auto add = [&](const std::string& name, const ConstTensorView& view) {
    const std::vector<double> values = ToDoubles(view);
    tensors[name] = Values(values.begin(), values.end());
  };
  add("input", run.forward.input.dense);
  if (run.forward.attention.key.defined()) {
    add("key", run.forward.attention.key);
    add("value", run.forward.attention.value);
  }
  for (const NamedParameter& p : run.layer->NamedParameters()) add(p.name, p.value());
  return tensors;
}

Results ReferenceResults(const Reference& reference, const Tensors& tensors,
                         const std::vector<double>& weights, bool wants_dinput) {
  constexpr double kStep = 1e-20;
  Results results;
  for (const Complex& v : reference(tensors)) results["output"].push_back(v.real());
  Tensors moved = tensors;
  for (auto& [name, values] : moved) {
    if (name == "input" && !wants_dinput) continue;
    std::vector<double>& gradient = results[name];
    for (Complex& v : values) {
      v += Complex(0, kStep);
      const Values out = reference(moved);
      double sum = 0;
      for (size_t i = 0; i < out.size(); ++i) sum += weights[i] * out[i].imag() / kStep;
      gradient.push_back(sum);
      v = v.real();
    }
  }
  return results;
}

::testing::AssertionResult ResultsNear(const Results& got, const Results& want, double tolerance,
                                       double floor) {
  for (const auto& [name, w] : want) {
    const auto it = got.find(name);
    if (it == got.end() || it->second.size() != w.size()) {
      return ::testing::AssertionFailure() << name << ": not computed, or of another size";
    }
    double largest = floor;
    for (double v : w) largest = std::max(largest, std::abs(v));
    for (size_t i = 0; i < w.size(); ++i) {
      const double error = std::abs(it->second[i] - w[i]);
      if (!(error <= tolerance * largest)) {
        return ::testing::AssertionFailure()
               << name << "[" << i << "] is " << it->second[i] << ", expected " << w[i]
               << ": error " << error << " above " << tolerance << " * " << largest;
      }
    }
  }
  if (got.size() != want.size())
    return ::testing::AssertionFailure() << "tensors that the reference does not have";
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult ResultsEqual(const Results& got, const Results& want) {
  return ResultsNear(got, want, 0, 0);
}

double Tolerance(DType dtype, int64_t length, int operations) {
  // A bfloat16 layer adds in float32: only the results of its operations are rounded to bfloat16.
  const double sums =
      UnitRoundoff(DType::kFloat32) * std::sqrt(static_cast<double>(length) * operations);
  const double stores = UnitRoundoff(dtype) * std::sqrt(static_cast<double>(operations));
  return 4 * 2 * (sums + stores);
}

void ExpectMatchesReference(const LayerRun& run, const Reference& reference, int64_t length,
                            int operations, uint64_t seed) {
  const std::vector<double> weights = OutputWeights(run, seed);
  const Tensors tensors = TensorsOf(run);
  const double tolerance =
      Tolerance(run.forward.input.dense.dtype() == DType::kInt32 ? run.output_dtype
                                                                 : run.forward.input.dense.dtype(),
                length, operations);
  const Results got = Run(run, weights);
  const Results want = ReferenceResults(reference, tensors, weights, run.wants_dinput);
  constexpr double kFloor = 0.1;
  EXPECT_TRUE(ResultsNear(got, want, tolerance, kFloor));
  int twins = 0;
  for (const auto& [name, values] : tensors) {
    if (name == "input" && !run.wants_dinput) continue;
    if (values.empty()) continue;
    Tensors disturbed = tensors;
    Complex& v = disturbed[name][values.size() / 2];
    v += 8.0 + std::abs(v);
    Results twin;
    for (const Complex& out : reference(disturbed)) twin["output"].push_back(out.real());
    // A value that the output does not depend on (a dead unit, a key's bias under softmax) has no
    // twin.
    if (!ResultsNear(twin, {{"output", want.at("output")}}, 3 * tolerance, kFloor)) {
      ++twins;
      EXPECT_FALSE(ResultsNear({{"output", got.at("output")}}, twin, tolerance, kFloor))
          << "disturbed " << name;
    }
    Results wrong = want;
    double& gradient = wrong[name][values.size() / 2];
    double largest = kFloor;
    for (double g : want.at(name)) largest = std::max(largest, std::abs(g));
    gradient += gradient < 0 ? -3 * tolerance * largest : 3 * tolerance * largest;
    EXPECT_FALSE(ResultsNear(got, wrong, tolerance, kFloor)) << "disturbed gradient of " << name;
  }
  EXPECT_GT(twins, 0);
}

}  // namespace te::test
