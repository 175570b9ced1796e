#include "te_core/layers/layer.h"

namespace te {

std::string JoinName(const std::string& prefix, const std::string& name) {
  if (prefix.empty()) return name;
  return name.empty() ? prefix : prefix + "." + name;
}

Status Layer::WrapChild(std::string_view name, const Wrap& wrap) {
  std::string names;
  for (Child& child : children_) {
    if (child.name == name) {
      child.layer = wrap(std::move(child.layer));
      return OkStatus();
    }
    names += (names.empty() ? "" : ", ") + child.name;
  }
  return NotFound("{}: no child '{}'; it has: {}", name_, name, names.empty() ? "none" : names);
}

void Layer::VisitParameters(const std::string& prefix, const ParameterVisitor& visit) {
  VisitOwnParameters(prefix, visit);
  for (const Child& child : children_)
    child.layer->VisitParameters(JoinName(prefix, child.name), visit);
}

std::string Layer::DescribeTree(const std::string& type, int indent) const {
  std::string out = type + "(\n";
  const std::string pad(static_cast<size_t>(indent) + 2, ' ');
  for (const Child& child : children_)
    out += pad + "(" + child.name + "): " + child.layer->Describe(indent + 2) + "\n";
  return out + std::string(static_cast<size_t>(indent), ' ') + ")";
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
