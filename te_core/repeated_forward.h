// A forward pass that runs twice: once for its output, and again before its backward pass, which
// then finds what the first run has not kept (RecomputedLayer). The second run must see what the
// first has seen: its scope of quantization, which has ended since, the scales of that time, and
// the random numbers of its micro-batch.
#pragma once

#include "te_core/context.h"

namespace te {

// What a forward pass goes by besides its arguments and the parameters.
class ForwardConditions {
 public:
  // Of a pass that begins now: in a second run of a layer around this one, as that goes.
  void Begin(Context* context);
  // To be called at its end, within the same scope: keeps the scales, in `arena`. (The pass itself
  // makes those that are new.)
  Status KeepScales(Context* context, Arena* arena);

  // The innermost scope's.
  const QuantizationOptions& options() const { return options_; }
  const DelayedScalingState::Snapshot& scales() const { return scales_; }

 private:
  friend class RepeatedForward;

  bool in_scope_ = false;
  const Recipe* recipe_ = nullptr;  // the innermost scope's; null: none, or no quantization
  QuantizationOptions options_;
  bool first_module_ran_ = false;
  uint32_t micro_batch_ = 0;
  DelayedScalingState::Snapshot scales_;
};

// While it lives, forward passes in `context` are second runs under `conditions`: weights are read
// as the first run has read them, casts go by its scales and leave no amax, and no scope of the
// caller's counts. Thread-compatible; both must outlive it. They nest.
class RepeatedForward {
 public:
  RepeatedForward(Context* context, const ForwardConditions* conditions);
  ~RepeatedForward();
  RepeatedForward(const RepeatedForward&) = delete;
  RepeatedForward& operator=(const RepeatedForward&) = delete;

 private:
  // Exchanges the context's scopes and micro-batch with those kept here.
  void Exchange();

  Context* context_;
  const ForwardConditions* outer_;
  std::vector<Context::QuantizationScope> scopes_;
  bool first_module_ran_;
  uint32_t micro_batch_;
};

// Where a cast by delayed scaling reads its scale and leaves its amax (null: nowhere).
struct CastScaling {
  const float* scale = nullptr;
  float* amax = nullptr;
};
// Of a pass that runs now; in a second run the first one's scale. `leaves_amax` is the pass's word.
// kFailedPrecondition: a second run asks for a tensor that the first did not have.
StatusOr<CastScaling> CastScalingOf(const Context& context, const DelayedScalingState::Slot& slot,
                                    bool leaves_amax);

}  // namespace te
