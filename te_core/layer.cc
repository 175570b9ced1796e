#include "te_core/layer.h"

namespace te {

std::string JoinName(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

Status Layer::Backward(const BackwardArgs& args, Saved* saved) {
  TE_RETURN_IF_ERROR(BackwardInput(args, saved));
  return BackwardWeight(args, saved);
}

std::vector<NamedParameter> Layer::NamedParameters() {
  std::vector<NamedParameter> out;
  VisitParameters("", [&](const std::string& full_name, Parameter& parameter) {
    if (parameter.slices.empty()) {
      out.push_back({full_name, &parameter, 0, parameter.shape()[0]});
      return;
    }
    // A slice's name replaces the buffer's own.
    const std::string prefix = full_name.substr(0, full_name.size() - parameter.name.size());
    for (const ParameterSlice& slice : parameter.slices) {
      out.push_back({prefix + slice.name, &parameter, slice.row_begin, slice.rows});
    }
  });
  return out;
}

std::vector<Parameter*> Layer::Parameters() {
  std::vector<Parameter*> out;
  VisitParameters("", [&](const std::string&, Parameter& parameter) { out.push_back(&parameter); });
  return out;
}

Status Layer::EnsureGradients() {
  for (Parameter* parameter : Parameters())
    TE_RETURN_IF_ERROR(parameter->EnsureGrad(context_->memory()));
  return OkStatus();
}

}  // namespace te
