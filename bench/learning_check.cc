#include "bench/learning_check.h"

#include <cmath>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "te_core/quantization/fp8_only_weight.h"

namespace te::bench {
namespace {

// Two sums a tensor, in the order of the model's tensors.
StatusOr<std::vector<double>> Sums(LlamaModel* model) {
  Context* context = model->context();
  const auto count = static_cast<int64_t>(model->tensors().size());
  TE_ASSIGN_OR_RETURN(const Tensor sums, context->NewTensor(DType::kFloat64, {2 * count}));
  double* out = sums.view().as<double>();
  for (const LlamaTensor& tensor : model->tensors()) {
    Tensor dequantized;
    ConstTensorView value = tensor.value();
    if (tensor.parameter->fp8_only()) {
      TE_ASSIGN_OR_RETURN(dequantized, DequantizedRows(context, *tensor.parameter, tensor.row_begin,
                                                       tensor.name.shape[0], DType::kFloat32));
      value = dequantized;
    }
    for (const bool squared : {false, true}) {
      TE_RETURN_IF_ERROR(
          context->kernels().sum(context->exec(), {.x = value, .squared = squared, .out = out++}));
    }
  }
  std::vector<double> host(static_cast<size_t>(2 * count));
  TE_RETURN_IF_ERROR(context->CopyToHost(sums.view(), host.data()));
  return host;
}

std::string Failure(const LearningCheck& check) {
  for (const double loss : check.losses) {
    if (!std::isfinite(loss)) return fmt::format("a loss is {}", loss);
  }
  if (!(check.losses.back() < check.losses.front())) {
    return fmt::format("the loss does not fall: from {} to {}", check.losses.front(),
                       check.losses.back());
  }
  if (!check.unchanged.empty()) {
    return fmt::format("{} of {} tensors did not change: {}", check.unchanged.size(), check.tensors,
                       fmt::join(check.unchanged, ", "));
  }
  return "";
}

}  // namespace

StatusOr<LearningCheck> CheckLearning(LlamaModel* model, int steps,
                                      const std::function<StatusOr<double>()>& step) {
  LearningCheck check;
  TE_ASSIGN_OR_RETURN(const std::vector<double> before, Sums(model));
  for (int i = 0; i < steps; ++i) {
    TE_ASSIGN_OR_RETURN(const double loss, step());
    check.losses.push_back(loss);
  }
  TE_ASSIGN_OR_RETURN(const std::vector<double> after, Sums(model));

  check.tensors = static_cast<int64_t>(model->tensors().size());
  for (size_t i = 0; i < model->tensors().size(); ++i) {
    if (before[2 * i] == after[2 * i] && before[2 * i + 1] == after[2 * i + 1])
      check.unchanged.push_back(model->tensors()[i].name.hf_name);
  }
  check.failure = Failure(check);
  return check;
}

}  // namespace te::bench
