// Whether steps teach: a fast step that computes nothing would be worth nothing.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "models/llama/llama_model.h"

namespace te::bench {

struct LearningCheck {
  std::vector<double> losses;          // of each step
  std::vector<std::string> unchanged;  // names of tensors that no step changed
  int64_t tensors = 0;
  // "" when every loss is finite, the last is below the first, and every tensor has changed.
  std::string failure;
};

// Runs `steps` steps, each of which returns its mean loss, and compares two sums over each tensor
// of the checkpoint (of its elements and their squares) before and after.
StatusOr<LearningCheck> CheckLearning(LlamaModel* model, int steps,
                                      const std::function<StatusOr<double>()>& step);

}  // namespace te::bench
