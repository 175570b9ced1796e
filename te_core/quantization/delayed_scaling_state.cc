#include "te_core/quantization/delayed_scaling_state.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace te {
namespace {

uint64_t Fnv1a(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// Columns of a pool: enough for one kernel a model, not more memory than a long history deserves.
int64_t CapacityFor(int64_t history_len) {
  constexpr int64_t kElements = 1 << 19;
  return std::clamp<int64_t>(kElements / history_len, 32, 512);
}

}  // namespace

struct DelayedScalingState::Pool {
  TensorQuantization quantization;
  ScalingDirection direction = ScalingDirection::kForward;
  Tensor history;  // float32 [len, capacity]
  Tensor scale;    // float32 [capacity]
  int64_t capacity = 0;
  int64_t used = 0;               // columns given out so far
  std::vector<int64_t> released;  // of them
  uint64_t version = 0;
};

DelayedScalingState::DelayedScalingState(Device* device, MemoryResource* memory,
                                         const ProcessGroups& groups)
    : device_(device), memory_(memory), groups_(groups) {}

DelayedScalingState::~DelayedScalingState() = default;

const float* DelayedScalingState::Slot::scale() const {
  return pool->scale.view().as<float>() + index;
}
float* DelayedScalingState::Slot::amax() const { return pool->history.view().as<float>() + index; }
uint64_t DelayedScalingState::Slot::version() const { return pool->version; }

StatusOr<DelayedScalingState::Pool*> DelayedScalingState::PoolFor(
    const Exec& exec, const TensorQuantization& quantization, ScalingDirection direction) {
  for (const std::unique_ptr<Pool>& pool : pools_) {
    if (pool->quantization == quantization && pool->direction == direction &&
        (pool->used < pool->capacity || !pool->released.empty())) {
      return pool.get();
    }
  }
  auto pool = std::make_unique<Pool>();
  pool->quantization = quantization;
  pool->direction = direction;
  pool->capacity = CapacityFor(quantization.amax_history_len);
  TE_ASSIGN_OR_RETURN(
      pool->history,
      Tensor::Allocate(memory_, DType::kFloat32, {quantization.amax_history_len, pool->capacity}));
  TE_ASSIGN_OR_RETURN(pool->scale, Tensor::Allocate(memory_, DType::kFloat32, {pool->capacity}));
  TE_RETURN_IF_ERROR(
      device_->Zero(exec, pool->history.view().data(), pool->history.view().bytes()));
  const std::vector<float> ones(static_cast<size_t>(pool->capacity), 1.0f);
  TE_RETURN_IF_ERROR(device_->CopyFromHost(exec, ones.data(), pool->scale.view().data(),
                                           pool->scale.view().bytes()));
  pools_.push_back(std::move(pool));
  return pools_.back().get();
}

StatusOr<DelayedScalingState::Slot*> DelayedScalingState::NewSlot(
    const Exec& exec, const std::string& name, const TensorQuantization& quantization,
    ScalingDirection direction) {
  TE_ASSIGN_OR_RETURN(Pool * pool, PoolFor(exec, quantization, direction));
  auto slot = std::make_unique<Slot>();
  slot->name = name;
  slot->pool = pool;
  const bool fresh = pool->released.empty();
  slot->index = fresh ? pool->used : pool->released.back();
  const auto found = imported_.find(name);
  if (!name.empty() && found != imported_.end()) {
    Imported& imported = found->second;
    const auto d = static_cast<size_t>(direction);
    TE_RETURN_IF_ERROR(CheckFits(*slot, imported.saved));
    // The first one empties row 0, the others find nothing to do.
    if (updates_[d] > imported.updates[d])
      TE_RETURN_IF_ERROR(Advance(exec, quantization, &imported.saved));
    TE_RETURN_IF_ERROR(WriteColumn(exec, slot.get(), imported.saved));
    imported_.erase(found);
  } else if (!fresh) {
    Saved empty;
    empty.format = quantization.format;
    empty.amax_history.resize(static_cast<size_t>(quantization.amax_history_len));
    TE_RETURN_IF_ERROR(WriteColumn(exec, slot.get(), empty));
    slot->imported = false;
  }
  if (fresh) {
    ++pool->used;
  } else {
    pool->released.pop_back();
  }
  slots_changed_[static_cast<size_t>(direction)] = true;
  slots_.push_back(std::move(slot));
  return slots_.back().get();
}

void DelayedScalingState::Release(Slot* slot) {
  const auto it = std::find_if(slots_.begin(), slots_.end(),
                               [slot](const auto& owned) { return owned.get() == slot; });
  if (it == slots_.end()) return;
  slot->pool->released.push_back(slot->index);
  slots_changed_[static_cast<size_t>(slot->pool->direction)] = true;
  slots_.erase(it);
}

Status DelayedScalingState::Restart(const Exec& exec, Slot* slot, ConstTensorView x) {
  if (!amax_.defined()) {
    TE_ASSIGN_OR_RETURN(amax_, Tensor::Allocate(memory_, DType::kFloat32, {1, 1}));
  }
  const TensorQuantization& q = slot->pool->quantization;
  const TensorView amax(slot->amax(), DType::kFloat32, {1, 1});
  TE_RETURN_IF_ERROR(device_->Zero(exec, slot->amax(), sizeof(float)));
  QuantSpec amax_alone;
  amax_alone.format = q.format;
  amax_alone.scaling = q.scaling;
  amax_alone.scale = slot->scale();
  amax_alone.amax = slot->amax();
  const KernelTable& kernels = device_->kernels();
  TE_RETURN_IF_ERROR(kernels.quantize(exec, {.x = x, .out = amax_alone}));
  // A history of its own, which the kernel empties.
  TE_RETURN_IF_ERROR(kernels.cast(exec, {.x = amax, .y = amax_.view()}));
  TE_RETURN_IF_ERROR(kernels.delayed_scaling(
      exec, {.history = amax_.view(),
             .scale = slot->pool->scale.view().Slice(0, slot->index, slot->index + 1),
             .algo = AmaxComputeAlgo::kMostRecent,
             .margin = q.margin,
             .format = q.format}));
  ++slot->pool->version;
  return OkStatus();
}

Status DelayedScalingState::UpdateColumns(const Exec& exec, const TensorQuantization& quantization,
                                          const TensorView& history, const TensorView& scale) {
  return device_->kernels().delayed_scaling(exec, {.history = history,
                                                   .scale = scale,
                                                   .algo = quantization.amax_compute_algo,
                                                   .margin = quantization.margin,
                                                   .format = quantization.format});
}

Status DelayedScalingState::ReduceAmaxes(const Exec& exec, ScalingDirection direction) {
  Communicator* const group = groups_.tensor_context_data;
  if (GroupSize(group) == 1) return OkStatus();
  std::vector<TensorView> amaxes;
  int64_t count = 0;
  for (const std::unique_ptr<Pool>& pool : pools_) {
    if (pool->direction != direction || !pool->quantization.reduce_amax || pool->used == 0)
      continue;
    amaxes.push_back(pool->history.view().Select(0, 0).Slice(0, 0, pool->used));
    count += pool->used;
  }
  TE_RETURN_IF_ERROR(CheckSlotsOfRanks(exec, direction));
  if (amaxes.empty()) return OkStatus();
  if (amaxes.size() == 1) return group->AllReduce(exec, amaxes[0], ReduceOp::kMax);
  // Side by side, so that there is one reduction.
  const KernelTable& kernels = device_->kernels();
  const ArenaScope scope(exec.scratch);
  TE_ASSIGN_OR_RETURN(const TensorView joined, exec.scratch->Allocate(DType::kFloat32, {count}));
  const auto for_each = [&](const std::function<Status(TensorView own, TensorView part)>& copy) {
    int64_t begin = 0;
    for (const TensorView& own : amaxes) {
      TE_RETURN_IF_ERROR(copy(own, joined.Slice(0, begin, begin + own.elements())));
      begin += own.elements();
    }
    return OkStatus();
  };
  TE_RETURN_IF_ERROR(for_each(
      [&](TensorView own, TensorView part) { return kernels.cast(exec, {.x = own, .y = part}); }));
  TE_RETURN_IF_ERROR(group->AllReduce(exec, joined, ReduceOp::kMax));
  return for_each(
      [&](TensorView own, TensorView part) { return kernels.cast(exec, {.x = part, .y = own}); });
}

Status DelayedScalingState::CheckSlotsOfRanks(const Exec& exec, ScalingDirection direction) {
  bool& changed = slots_changed_[static_cast<size_t>(direction)];
  if (!changed) return OkStatus();
  // Two ranks that run other modules may have as many slots: their amaxes would be mixed up.
  std::string places;
  size_t count = 0;
  for (const std::unique_ptr<Slot>& slot : slots_) {
    if (slot->pool->direction != direction || !slot->pool->quantization.reduce_amax) continue;
    const auto pool = std::find_if(pools_.begin(), pools_.end(),
                                   [&](const auto& p) { return p.get() == slot->pool; });
    places += fmt::format("{}:{}:{}\n", pool - pools_.begin(), slot->index, slot->name);
    ++count;
  }
  const auto hash = static_cast<int64_t>(Fnv1a(places) >> 1);
  int64_t agreed[2] = {hash, -hash};
  TE_ASSIGN_OR_RETURN(const Tensor tensor, Tensor::Allocate(memory_, DType::kInt64, {2}));
  const TensorView view = tensor.view();
  TE_RETURN_IF_ERROR(device_->CopyFromHost(exec, agreed, view.data(), view.bytes()));
  TE_RETURN_IF_ERROR(groups_.tensor_context_data->AllReduce(exec, view, ReduceOp::kMax));
  TE_RETURN_IF_ERROR(device_->CopyToHost(exec, view.data(), agreed, view.bytes()));
  TE_RETURN_IF_ERROR(device_->Synchronize(exec));
  if (agreed[0] != hash || agreed[1] != -hash) {
    return FailedPrecondition(
        "the ranks of group '{}' have other tensors with delayed scaling, or the same in another "
        "order (here {}); expected the same modules run in the same order on every rank",
        groups_.tensor_context_data->name(), count);
  }
  changed = false;
  return OkStatus();
}

Status DelayedScalingState::Update(const Exec& exec, ScalingDirection direction) {
  TE_RETURN_IF_ERROR(ReduceAmaxes(exec, direction));
  for (const std::unique_ptr<Pool>& pool : pools_) {
    if (pool->direction != direction) continue;
    TE_RETURN_IF_ERROR(
        UpdateColumns(exec, pool->quantization, pool->history.view(), pool->scale.view()));
    ++pool->version;
  }
  ++updates_[static_cast<size_t>(direction)];
  return OkStatus();
}

Status DelayedScalingState::Advance(const Exec& exec, const TensorQuantization& quantization,
                                    Saved* state) {
  const auto length = static_cast<int64_t>(state->amax_history.size());
  TE_ASSIGN_OR_RETURN(const Tensor history,
                      Tensor::Allocate(memory_, DType::kFloat32, {length, 1}));
  TE_ASSIGN_OR_RETURN(const Tensor scale, Tensor::Allocate(memory_, DType::kFloat32, {1}));
  const TensorView h = history.view(), s = scale.view();
  TE_RETURN_IF_ERROR(device_->CopyFromHost(exec, state->amax_history.data(), h.data(), h.bytes()));
  TE_RETURN_IF_ERROR(device_->CopyFromHost(exec, &state->scale, s.data(), s.bytes()));
  Communicator* const group = groups_.tensor_context_data;
  if (quantization.reduce_amax && GroupSize(group) > 1)
    TE_RETURN_IF_ERROR(group->AllReduce(exec, h.Select(0, 0), ReduceOp::kMax));
  TE_RETURN_IF_ERROR(UpdateColumns(exec, quantization, h, s));
  TE_RETURN_IF_ERROR(device_->CopyToHost(exec, h.data(), state->amax_history.data(), h.bytes()));
  TE_RETURN_IF_ERROR(device_->CopyToHost(exec, s.data(), &state->scale, s.bytes()));
  return device_->Synchronize(exec);
}

StatusOr<DelayedScalingState::Snapshot> DelayedScalingState::TakeSnapshot(
    const Exec& exec, ScalingDirection direction, Arena* arena) const {
  Snapshot snapshot;
  for (const std::unique_ptr<Pool>& pool : pools_) {
    if (pool->direction != direction) continue;
    TE_ASSIGN_OR_RETURN(const TensorView scale, arena->Allocate(DType::kFloat32, {pool->used}));
    TE_RETURN_IF_ERROR(device_->kernels().cast(
        exec, {.x = pool->scale.view().Slice(0, 0, pool->used), .y = scale}));
    snapshot.copies_.push_back({pool.get(), scale, pool->version});
  }
  return snapshot;
}

const DelayedScalingState::Snapshot::Copy* DelayedScalingState::Snapshot::Find(
    const Slot& slot) const {
  for (const Copy& copy : copies_)
    if (copy.pool == slot.pool && slot.index < copy.scale.elements()) return &copy;
  return nullptr;
}

const float* DelayedScalingState::Snapshot::scale(const Slot& slot) const {
  const Copy* const copy = Find(slot);
  return copy == nullptr ? nullptr : copy->scale.as<float>() + slot.index;
}

uint64_t DelayedScalingState::Snapshot::version(const Slot& slot) const {
  const Copy* const copy = Find(slot);
  return copy == nullptr ? 0 : copy->version;
}

void DelayedScalingState::RemoveModule(const std::string& name) {
  const auto found = modules_.find(name);
  if (found == modules_.end()) return;
  modules_.erase(found);
  if (modules_.contains(name)) return;
  std::erase_if(imported_, [&name](const auto& item) {
    return item.first.substr(0, item.first.rfind('.')) == name;
  });
}

bool DelayedScalingState::HasModuleOf(std::string_view slot) const {
  const size_t dot = slot.rfind('.');
  return dot != std::string_view::npos && modules_.find(slot.substr(0, dot)) != modules_.end();
}

Status DelayedScalingState::CheckFits(const Slot& slot, const Saved& state) {
  const TensorQuantization& quantization = slot.pool->quantization;
  const auto length = static_cast<int64_t>(state.amax_history.size());
  if (state.format == quantization.format && length == quantization.amax_history_len)
    return OkStatus();
  return FailedPrecondition(
      "the saved FP8 state of {} has format {} and a history of {}; the recipe asks for {} and {}",
      slot.name, Name(state.format), length, Name(quantization.format),
      quantization.amax_history_len);
}

Status DelayedScalingState::WriteColumn(const Exec& exec, Slot* slot, const Saved& state) {
  TE_RETURN_IF_ERROR(CheckFits(*slot, state));
  Pool* pool = slot->pool;
  const auto len = static_cast<size_t>(pool->quantization.amax_history_len);
  // A column has no contiguous copy: the whole pool goes through the host. Rare: once a slot.
  const TensorView& history = pool->history.view();
  std::vector<float> host(static_cast<size_t>(history.elements()));
  TE_RETURN_IF_ERROR(device_->CopyToHost(exec, history.data(), host.data(), history.bytes()));
  TE_RETURN_IF_ERROR(device_->Synchronize(exec));
  for (size_t i = 0; i < len; ++i)
    host[i * static_cast<size_t>(pool->capacity) + static_cast<size_t>(slot->index)] =
        state.amax_history[i];
  TE_RETURN_IF_ERROR(device_->CopyFromHost(exec, host.data(), history.data(), history.bytes()));
  TE_RETURN_IF_ERROR(device_->CopyFromHost(
      exec, &state.scale, pool->scale.view().as<float>() + slot->index, sizeof(float)));
  slot->imported = true;
  ++pool->version;
  return OkStatus();
}

StatusOr<std::vector<DelayedScalingState::Saved>> DelayedScalingState::Export(
    const Exec& exec) const {
  struct Host {
    std::vector<float> history, scale;
  };
  std::map<const Pool*, Host> hosts;
  for (const std::unique_ptr<Pool>& pool : pools_) {
    Host& host = hosts[pool.get()];
    host.history.resize(static_cast<size_t>(pool->history.view().elements()));
    host.scale.resize(static_cast<size_t>(pool->capacity));
    TE_RETURN_IF_ERROR(device_->CopyToHost(exec, pool->history.view().data(), host.history.data(),
                                           pool->history.view().bytes()));
    TE_RETURN_IF_ERROR(device_->CopyToHost(exec, pool->scale.view().data(), host.scale.data(),
                                           pool->scale.view().bytes()));
  }
  TE_RETURN_IF_ERROR(device_->Synchronize(exec));
  std::map<std::string, Saved> by_name;
  for (const std::unique_ptr<Slot>& slot : slots_) {
    if (slot->name.empty()) continue;
    const Host& host = hosts[slot->pool];
    Saved saved;
    saved.name = slot->name;
    saved.format = slot->pool->quantization.format;
    const auto index = static_cast<size_t>(slot->index);
    saved.scale = host.scale[index];
    for (size_t i = index; i < host.history.size(); i += static_cast<size_t>(slot->pool->capacity))
      saved.amax_history.push_back(host.history[i]);
    if (!by_name.emplace(slot->name, std::move(saved)).second) {
      return FailedPrecondition(
          "two modules of this context are named so that both have FP8 state under '{}'; expected "
          "names of their own",
          slot->name);
    }
  }
  // What waits for its module is as good as in place.
  for (const auto& [name, imported] : imported_) by_name.emplace(name, imported.saved);
  std::vector<Saved> out;
  for (auto& [name, saved] : by_name) out.push_back(std::move(saved));
  return out;
}

Status DelayedScalingState::Import(const Exec& exec, std::vector<Saved> states) {
  std::map<std::string, Saved> by_name;
  for (Saved& state : states) {
    if (!(state.scale > 0) || !std::isfinite(state.scale)) {
      return InvalidArgument("FP8 state of {}: scale is {}; expected a finite number above 0",
                             state.name, state.scale);
    }
    if (state.amax_history.empty())
      return InvalidArgument("FP8 state of {}: the amax history is empty", state.name);
    for (const float amax : state.amax_history) {
      if (!(amax >= 0)) {
        return InvalidArgument("FP8 state of {}: an amax is {}; expected 0 or more", state.name,
                               amax);
      }
    }
    const std::string name = state.name;
    if (!by_name.emplace(name, std::move(state)).second)
      return InvalidArgument("FP8 state of {} is there twice", name);
  }
  for (const std::unique_ptr<Slot>& slot : slots_) {
    const auto found = by_name.find(slot->name);
    if (!slot->name.empty() && found != by_name.end())
      TE_RETURN_IF_ERROR(CheckFits(*slot, found->second));
  }
  for (const std::unique_ptr<Slot>& slot : slots_) {
    const auto found = by_name.find(slot->name);
    if (slot->name.empty() || found == by_name.end()) continue;
    TE_RETURN_IF_ERROR(WriteColumn(exec, slot.get(), found->second));
    by_name.erase(found);
  }
  imported_.clear();
  for (auto& [name, state] : by_name)
    imported_[name] = {std::move(state), {updates_[0], updates_[1]}};
  return OkStatus();
}

ScalingSlot::~ScalingSlot() {
  if (slot_ != nullptr) state_->Release(slot_);
}

StatusOr<DelayedScalingState::Slot*> ScalingSlot::For(DelayedScalingState* state, const Exec& exec,
                                                      const std::string& name,
                                                      const TensorQuantization& quantization,
                                                      ScalingDirection direction) {
  if (slot_ != nullptr && !(quantization_ == quantization)) {
    state_->Release(slot_);
    slot_ = nullptr;
  }
  if (slot_ == nullptr) {
    TE_ASSIGN_OR_RETURN(slot_, state->NewSlot(exec, name, quantization, direction));
    state_ = state;
    quantization_ = quantization;
  }
  return slot_;
}

}  // namespace te
