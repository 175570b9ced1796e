// Reference of adamw.h: its equations, templated on the scalar.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace te {

struct AdamWHyperparameters {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
  double grad_scale = 1;
  int64_t step = 1;
};

template <typename Scalar>
void AdamWRef(const AdamWHyperparameters& h, const std::vector<Scalar>& grad,
              std::vector<Scalar>* param, std::vector<Scalar>* m, std::vector<Scalar>* v) {
  const double correction1 = 1 - std::pow(h.beta1, h.step);
  const double correction2 = 1 - std::pow(h.beta2, h.step);
  for (size_t i = 0; i < grad.size(); ++i) {
    const Scalar g = h.grad_scale * grad[i];
    Scalar& w = (*param)[i];
    w = w * (1 - h.learning_rate * h.weight_decay);
    (*m)[i] = h.beta1 * (*m)[i] + (1 - h.beta1) * g;
    (*v)[i] = h.beta2 * (*v)[i] + (1 - h.beta2) * g * g;
    w = w - h.learning_rate / correction1 * (*m)[i] /
                (std::sqrt((*v)[i]) / std::sqrt(correction2) + h.epsilon);
  }
}

}  // namespace te
