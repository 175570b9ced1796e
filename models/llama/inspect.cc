#include "models/llama/inspect.h"

#include <algorithm>

#include "fmt/format.h"

namespace te {
namespace {

// 6738415616 as "6,738,415,616".
std::string Grouped(int64_t value) {
  const std::string digits = std::to_string(value);
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

}  // namespace

std::string InspectLlama(const LlamaModel& model) {
  const LlamaConfig& config = model.config();
  std::string out = model.Describe() + "\n\n";
  int64_t layer = 0;
  size_t hf_width = 0, shape_width = 0;
  for (const LlamaTensor& tensor : model.tensors()) {
    if (tensor.name.layer == 0) layer += tensor.name.shape.elements();
    hf_width = std::max(hf_width, tensor.name.hf_name.size());
    shape_width = std::max(shape_width, tensor.name.shape.ToString().size());
  }
  const int64_t embedding = config.vocab_size * config.hidden_size;
  out +=
      fmt::format("parameters: {} = embedding {} + {} layers x {} + final norm {} + lm_head {}\n",
                  Grouped(config.ParameterCount()), Grouped(embedding), config.num_hidden_layers,
                  Grouped(layer), Grouped(config.hidden_size),
                  config.tie_word_embeddings ? "0 (tied to the embedding)" : Grouped(embedding));
  out += fmt::format("storage: {}, {} bytes\n\n", te::Name(model.options().params_dtype),
                     Grouped(config.ParameterCount() *
                             static_cast<int64_t>(SizeOf(model.options().params_dtype))));
  out += fmt::format("{:<{}}  {:<{}}  {}\n", "Hugging Face name", hf_width, "shape", shape_width,
                     "our name");
  for (const LlamaTensor& tensor : model.tensors()) {
    out += fmt::format("{:<{}}  {:<{}}  {}\n", tensor.name.hf_name, hf_width,
                       tensor.name.shape.ToString(), shape_width, tensor.name.te_name_with_rows());
  }
  if (config.tie_word_embeddings) {
    out += fmt::format("{:<{}}  {:<{}}  {} (tied)\n", kLlamaHeadName, hf_width,
                       Shape{config.vocab_size, config.hidden_size}.ToString(), shape_width,
                       kLlamaEmbeddingName);
  }
  return out;
}

}  // namespace te
