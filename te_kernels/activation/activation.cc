#include "te_kernels/activation/activation.h"

#include <array>
#include <iterator>
#include <string>

#include "te_kernels/base/check.h"
#include "te_kernels/base/sink.h"

namespace te {
namespace {

struct Entry {
  ActivationKind kind;
  const char* name;
  bool gated;
};

constexpr Entry kEntries[] = {
    {ActivationKind::kGelu, "gelu", false},
    {ActivationKind::kGeglu, "geglu", true},
    {ActivationKind::kGlu, "glu", true},
    {ActivationKind::kQgelu, "qgelu", false},
    {ActivationKind::kQgeglu, "qgeglu", true},
    {ActivationKind::kRelu, "relu", false},
    {ActivationKind::kReglu, "reglu", true},
    {ActivationKind::kSrelu, "srelu", false},
    {ActivationKind::kSreglu, "sreglu", true},
    {ActivationKind::kSilu, "silu", false},
    {ActivationKind::kSwiglu, "swiglu", true},
    {ActivationKind::kClampedSwiglu, "clamped_swiglu", true},
};

const Entry* Find(ActivationKind kind) {
  for (const Entry& entry : kEntries) {
    if (entry.kind == kind) return &entry;
  }
  return nullptr;
}

Status CheckKind(const char* op, ActivationKind kind, const ActivationParams& params) {
  if (Find(kind) == nullptr) {
    return InvalidArgument("{}: kind is {}; expected 0 to {}", op, static_cast<int>(kind),
                           std::size(kEntries) - 1);
  }
  if (kind == ActivationKind::kClampedSwiglu && !(params.limit > 0)) {
    return InvalidArgument("{}: params.limit is {}; expected > 0", op, params.limit);
  }
  return OkStatus();
}

// The shape of y for an x of this shape.
Status OutputShape(const char* op, ActivationKind kind, const ConstTensorView& x, Shape* shape) {
  TE_RETURN_IF_ERROR(CheckFloats(op, "x", x, 2));
  *shape = x.shape();
  if (!IsGated(kind)) return OkStatus();
  if (x.dim(1) % 2 != 0) {
    return InvalidArgument("{}: x is {}; {} is gated: expected [T, 2F]", op, x.ToString(),
                           Name(kind));
  }
  (*shape)[1] = x.dim(1) / 2;
  return OkStatus();
}

}  // namespace

bool IsGated(ActivationKind kind) {
  const Entry* entry = Find(kind);
  return entry != nullptr && entry->gated;
}

const char* Name(ActivationKind kind) {
  const Entry* entry = Find(kind);
  return entry == nullptr ? "unknown" : entry->name;
}

StatusOr<ActivationKind> ParseActivation(std::string_view name) {
  std::string names;
  for (const Entry& entry : kEntries) {
    if (name == entry.name) return entry.kind;
    names += names.empty() ? "" : ", ";
    names += entry.name;
  }
  return InvalidArgument("activation '{}' is unknown; expected one of: {}", name, names);
}

Status ValidateActivationForward(const ActivationForwardArgs& args) {
  constexpr const char* kOp = "activation_forward";
  TE_RETURN_IF_ERROR(CheckKind(kOp, args.kind, args.params));
  Shape shape;
  TE_RETURN_IF_ERROR(OutputShape(kOp, args.kind, args.x, &shape));
  return CheckSink(kOp, "y", args.y, args.x.dtype(), shape, shape[0], shape[1]);
}

Status ValidateActivationBackward(const ActivationBackwardArgs& args) {
  constexpr const char* kOp = "activation_backward";
  TE_RETURN_IF_ERROR(CheckKind(kOp, args.kind, args.params));
  Shape shape;
  TE_RETURN_IF_ERROR(OutputShape(kOp, args.kind, args.x, &shape));
  TE_RETURN_IF_ERROR(CheckTensor(kOp, "dy", args.dy, args.x.dtype(), shape));
  TE_RETURN_IF_ERROR(
      CheckSink(kOp, "dx", args.dx, args.x.dtype(), args.x.shape(), args.x.dim(0), args.x.dim(1)));
  if (!args.y.defined()) return OkStatus();
  if (!IsGated(args.kind)) {
    return InvalidArgument("{}: y is {}; {} is not gated: expected no y", kOp, args.y.ToString(),
                           Name(args.kind));
  }
  return CheckTensor(kOp, "y", args.y, args.x.dtype(), shape);
}

}  // namespace te
