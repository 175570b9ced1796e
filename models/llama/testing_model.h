// Small models with random weights and batches, for the tests of this folder.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "models/llama/llama_model.h"
#include "models/llama/trace.h"
#include "te_kernels/testing/checked.h"

namespace te {

using test::Ok;
using test::Value;

inline void ExpectError(const Status& status, StatusCode code,
                        const std::vector<std::string>& words) {
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), code) << status.message();
  for (const std::string& word : words) {
    EXPECT_NE(status.message().find(word), std::string::npos)
        << "'" << word << "' is not in: " << status.message();
  }
}

inline LlamaConfig SmallConfig() {
  LlamaConfig config;
  config.vocab_size = 37;
  config.hidden_size = 24;
  config.intermediate_size = 29;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 10;
  config.max_position_embeddings = 64;
  config.rms_norm_eps = 1e-5;
  return config;
}

inline std::unique_ptr<Context> NewContext(uint64_t seed = 7) {
  return Value(Context::Create({.num_threads = 2, .seed = seed}));
}

// Weights far from the small standard initialization, so that nothing is flat: gamma and biases,
// too.
inline void Randomize(LlamaModel* model, uint32_t seed) {
  std::mt19937 engine(seed);
  for (const LlamaTensor& tensor : model->tensors()) {
    const bool norm = tensor.name.hf_name.find("norm") != std::string::npos;
    std::normal_distribution<float> normal(norm ? 1.0f : 0.0f, 0.15f);
    const TensorView value = tensor.value();
    for (int64_t i = 0; i < value.elements(); ++i) {
      const float x = normal(engine);
      if (value.dtype() == DType::kFloat32) {
        value.as<float>()[i] = x;
      } else {
        value.as<bfloat16>()[i] = bfloat16(x);
      }
    }
    ++tensor.parameter->version;
  }
}

// Owns what a LlamaBatch views.
struct Data {
  int64_t batch, sequence;
  std::vector<int32_t> ids, labels;
  std::vector<uint8_t> mask;

  Data(const LlamaConfig& config, int64_t batch_size, int64_t length, uint32_t seed, bool padded)
      : batch(batch_size), sequence(length) {
    std::mt19937 engine(seed);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t keep = padded && b > 0 ? std::max<int64_t>(1, length - 2 * b - 1) : length;
      for (int64_t s = 0; s < length; ++s) {
        ids.push_back(static_cast<int32_t>(engine() % static_cast<uint32_t>(config.vocab_size)));
        mask.push_back(s < keep);
        labels.push_back(s < keep && !(b == 0 && s < 2) ? ids.back() : kIgnoreIndex);
      }
    }
  }
  LlamaBatch Batch() const {
    return {.batch = batch,
            .sequence = sequence,
            .input_ids = ids,
            .labels = labels,
            .attention_mask = mask};
  }
};

inline std::unique_ptr<LlamaModel> NewModel(Context* context, const LlamaConfig& config,
                                            LlamaPath path, DType dtype = DType::kFloat32,
                                            uint32_t seed = 1) {
  auto model = Value(LlamaModel::Create(context, config, {.params_dtype = dtype, .path = path}));
  Randomize(model.get(), seed);
  return model;
}

inline std::map<std::string, std::vector<float>> Trace(LlamaModel* model, const LlamaBatch& batch) {
  std::map<std::string, std::vector<float>> out;
  for (auto& tensor : Value(TraceLlama(model, batch, {.gradients = true, .hidden_states = true}))) {
    out[tensor.name] = std::move(tensor.values);
  }
  return out;
}

inline double Norm(const std::vector<float>& values) {
  double square = 0;
  for (float x : values) square += static_cast<double>(x) * x;
  return std::sqrt(square);
}

// |got - expected| / max(|expected|, floor) in 2-norms.
inline double RelativeError(const std::vector<float>& got, const std::vector<float>& expected,
                            double floor = 0) {
  if (got.size() != expected.size()) return HUGE_VAL;
  double difference = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - expected[i], 2);
  }
  const double norm = std::max(Norm(expected), floor);
  return norm > 0 && difference >= 0 ? std::sqrt(difference) / norm
                                     : (difference == 0 ? 0 : HUGE_VAL);
}

// As in tests/golden_test.cc: rounding of products that follow one another adds in quadrature, both
// sides round.
inline double Tolerance(const LlamaConfig& c, int64_t sequence, double u) {
  const int64_t layer = 2 * c.hidden_size + c.head_dim + sequence +
                        c.num_attention_heads * c.head_dim + c.intermediate_size;
  return 6 * u *
         std::sqrt(2.0 * 3 * static_cast<double>(c.num_hidden_layers * layer + c.hidden_size));
}

}  // namespace te
