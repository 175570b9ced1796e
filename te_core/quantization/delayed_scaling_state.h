// Scales and amax histories of delayed scaling: one slot a tensor role of a GEMM, many slots side
// by side, so that one kernel (and one reduction over ranks) updates them all.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "te_core/comm/process_groups.h"
#include "te_core/quantization/recipe.h"
#include "te_core/tensor.h"
#include "te_kernels/device/device.h"

namespace te {

// When scales are updated: at the end of a scope, or of the backward pass of its first module.
enum class ScalingDirection { kForward = 0, kBackward = 1 };

// Of one context. Thread-compatible. Slots start with scale 1 and an empty history, or with what
// was imported under their name.
class DelayedScalingState {
 public:
  DelayedScalingState(Device* device, MemoryResource* memory, const ProcessGroups& groups);

  ~DelayedScalingState();
  DelayedScalingState(const DelayedScalingState&) = delete;
  DelayedScalingState& operator=(const DelayedScalingState&) = delete;

  struct Pool;
  struct Slot {
    std::string name;  // "<module>.<tensor_type>"; empty: neither exported nor imported
    Pool* pool = nullptr;
    int64_t index = 0;
    bool imported = false;  // scale and history were
    // Device memory, at the same address for good.
    const float* scale() const;
    float* amax() const;  // of the current step
    // Counts the writings of scale.
    uint64_t version() const;
  };

  // `quantization` must be delayed().
  StatusOr<Slot*> NewSlot(const Exec& exec, const std::string& name,
                          const TensorQuantization& quantization, ScalingDirection direction);
  void Release(Slot* slot);
  // Scale and amax of a tensor whose values are all new: amax is x's, and the scale that which
  // follows from it alone. The rest of the history stays. (`x`: as quantize takes it.)
  Status Restart(const Exec& exec, Slot* slot, ConstTensorView x);
  // Reduces the amaxes over the ranks and derives the next scales, of all slots of a direction. The
  // reduction is one all_reduce over groups.tensor_context_data, for the slots whose recipe has
  // reduce_amax. Every rank of it makes the same slots in the same order (it runs the same modules)
  // before the same update; kFailedPrecondition: they have not.
  Status Update(const Exec& exec, ScalingDirection direction);

  // The scales of a direction as they were at one moment.
  class Snapshot {
   public:
    // Null, 0: the slot came later.
    const float* scale(const Slot& slot) const;
    uint64_t version(const Slot& slot) const;

   private:
    friend class DelayedScalingState;
    struct Copy {
      const Pool* pool = nullptr;
      ConstTensorView scale;
      uint64_t version = 0;
    };
    const Copy* Find(const Slot& slot) const;

    std::vector<Copy> copies_;
  };
  // Device work: one copy for some hundred slots. The numbers lie in `arena`.
  StatusOr<Snapshot> TakeSnapshot(const Exec& exec, ScalingDirection direction, Arena* arena) const;

  // One slot in host memory: what a file holds.
  struct Saved {
    std::string name;
    QuantFormat format = QuantFormat::kNone;
    float scale = 1;
    std::vector<float> amax_history;  // row 0: the amax of the current step
  };
  // Slots, and imports that wait for theirs. kFailedPrecondition: two slots share a name.
  StatusOr<std::vector<Saved>> Export(const Exec& exec) const;
  // Slots of these names, those that exist and those to come, take over scale and history. One to
  // come has then gone through the updates since the import as if it had been there: the last
  // module of a model may run after the end of the scope. kInvalidArgument: a name twice, no
  // history, a scale that is not positive and finite, an amax that is negative or NaN.
  // kFailedPrecondition: a slot's recipe has another format or length. Then nothing has changed. A
  // slot to come is refused when it is made.
  Status Import(const Exec& exec, std::vector<Saved> states);

  // The modules of the context that may have slots, by their full names (several may share one).
  void AddModule(const std::string& name) { modules_.insert(name); }
  // With the last one of its name goes what was imported and not taken.
  void RemoveModule(const std::string& name);
  // Whether `slot` ("<module>.<tensor_type>") is of one of them.
  bool HasModuleOf(std::string_view slot) const;

 private:
  StatusOr<Pool*> PoolFor(const Exec& exec, const TensorQuantization& quantization,
                          ScalingDirection direction);
  // An import that waits for its slot, and how many updates of each direction there were before it.
  struct Imported {
    Saved saved;
    int64_t updates[2] = {};
  };
  // The amaxes of this step, of all pools of a direction that are reduced, become those of the
  // ranks together.
  Status ReduceAmaxes(const Exec& exec, ScalingDirection direction);
  // Whether all ranks have the same slots in the same places. Asked when some have come or gone.
  Status CheckSlotsOfRanks(const Exec& exec, ScalingDirection direction);
  // One update of columns side by side, whose amaxes are reduced: history [len, n], scale [n].
  Status UpdateColumns(const Exec& exec, const TensorQuantization& quantization,
                       const TensorView& history, const TensorView& scale);
  // What an update makes of a state.
  Status Advance(const Exec& exec, const TensorQuantization& quantization, Saved* state);
  static Status CheckFits(const Slot& slot, const Saved& state);
  Status WriteColumn(const Exec& exec, Slot* slot, const Saved& state);

  Device* device_;
  MemoryResource* memory_;
  ProcessGroups groups_;
  std::vector<std::unique_ptr<Pool>> pools_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::map<std::string, Imported> imported_;
  int64_t updates_[2] = {};     // so far, by direction
  bool slots_changed_[2] = {};  // since the last check that the ranks have the same
  std::multiset<std::string, std::less<>> modules_;
  Tensor amax_;  // float32 [1], of Restart
};

// One tensor's place in the state, made when it is first asked for and made anew, with an empty
// history, when the recipe has changed. The state must outlive it.
class ScalingSlot {
 public:
  ScalingSlot() = default;
  ~ScalingSlot();
  ScalingSlot(const ScalingSlot&) = delete;
  ScalingSlot& operator=(const ScalingSlot&) = delete;

  StatusOr<DelayedScalingState::Slot*> For(DelayedScalingState* state, const Exec& exec,
                                           const std::string& name,
                                           const TensorQuantization& quantization,
                                           ScalingDirection direction);
  // Null before For.
  DelayedScalingState::Slot* get() const { return slot_; }

 private:
  DelayedScalingState* state_ = nullptr;
  DelayedScalingState::Slot* slot_ = nullptr;
  TensorQuantization quantization_;
};

}  // namespace te
