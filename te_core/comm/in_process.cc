#include "te_core/comm/in_process.h"

#include <new>
#include <system_error>
#include <thread>
#include <utility>

#include "te_core/comm/in_process_world.h"
#include "te_kernels/device/device.h"

namespace te {
namespace {

using in_process::Call;
using in_process::CallKind;
using in_process::Group;
using in_process::Message;
using in_process::World;

// What a call works on in host memory: the device's own where the host can access it, else a copy.
class HostBuffers {
 public:
  HostBuffers(Device* device, const Exec& exec) : device_(device), exec_(exec) {}

  // Waits for what the stream was given before; to be called once, after the last View.
  Status Wait() { return device_->Synchronize(exec_); }
  // The bytes at `data`, of which the call reads what is there (`in`).
  StatusOr<char*> View(const void* data, size_t bytes, bool in) {
    if (device_->host_accessible()) return static_cast<char*>(const_cast<void*>(data));
    std::unique_ptr<char[]> copy(new (std::nothrow) char[bytes]);
    if (copy == nullptr)
      return OutOfMemory("asked for {} bytes of host memory for what ranks exchange", bytes);
    if (in) TE_RETURN_IF_ERROR(device_->CopyToHost(exec_, data, copy.get(), bytes));
    copies_.push_back(std::move(copy));
    return copies_.back().get();
  }
  // Back to the device.
  Status Write(const char* host, void* data, size_t bytes) {
    if (device_->host_accessible()) return OkStatus();
    return device_->CopyFromHost(exec_, host, data, bytes);
  }

 private:
  Device* device_;
  const Exec& exec_;
  std::vector<std::unique_ptr<char[]>> copies_;
};

class InProcessCommunicator : public Communicator {
 public:
  InProcessCommunicator(std::shared_ptr<Group> group, int rank, std::shared_ptr<Device> device)
      : group_(std::move(group)), rank_(rank), device_(std::move(device)) {}
  ~InProcessCommunicator() override { group_->Leave(rank_); }

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }
  const std::string& name() const override { return group_->name(); }
  Status Barrier(const Exec& exec) override {
    TE_RETURN_IF_ERROR(device_->Synchronize(exec));
    Call call{.kind = CallKind::kBarrier};
    return group_->Run(rank_, &call);
  }
  void Abort(const Status& why) override { TryAbort(why); }
  // Whether nothing had ended the world before.
  bool TryAbort(const Status& why) { return group_->world().Abort(group_->member(rank_), why); }

 protected:
  Status DoAllReduce(const Exec& exec, TensorView data, ReduceOp op) override {
    HostBuffers host(device_.get(), exec);
    TE_ASSIGN_OR_RETURN(char* bytes, host.View(data.data(), data.bytes(), true));
    TE_RETURN_IF_ERROR(host.Wait());
    Call call{.kind = CallKind::kAllReduce,
              .dtype = data.dtype(),
              .op = op,
              .count = data.elements(),
              .in = bytes,
              .in_bytes = data.bytes(),
              .out = bytes,
              .out_bytes = data.bytes(),
              .in_place = data.data(),
              .out_place = data.data()};
    TE_RETURN_IF_ERROR(group_->Run(rank_, &call));
    return host.Write(bytes, data.data(), data.bytes());
  }

  Status DoAllGather(const Exec& exec, ConstTensorView in, TensorView out) override {
    return RunBetween(exec, {.kind = CallKind::kAllGather, .count = in.elements()}, in, out);
  }

  Status DoReduceScatter(const Exec& exec, ConstTensorView in, TensorView out,
                         ReduceOp op) override {
    return RunBetween(exec, {.kind = CallKind::kReduceScatter, .op = op, .count = out.elements()},
                      in, out);
  }

  Status DoAllToAll(const Exec& exec, ConstTensorView in, TensorView out,
                    std::span<const int64_t> in_counts,
                    std::span<const int64_t> out_counts) override {
    return RunBetween(exec,
                      {.kind = CallKind::kAllToAll,
                       .in_counts = {in_counts.begin(), in_counts.end()},
                       .out_counts = {out_counts.begin(), out_counts.end()}},
                      in, out);
  }

  Status DoBroadcast(const Exec& exec, TensorView data, int root) override {
    HostBuffers host(device_.get(), exec);
    const bool sends = root == rank_;
    TE_ASSIGN_OR_RETURN(char* bytes, host.View(data.data(), data.bytes(), sends));
    TE_RETURN_IF_ERROR(host.Wait());
    Call call{.kind = CallKind::kBroadcast,
              .dtype = data.dtype(),
              .root = root,
              .count = data.elements()};
    if (sends) {
      call.in = bytes;
      call.in_bytes = data.bytes();
      call.in_place = data.data();
    } else {
      call.out = bytes;
      call.out_bytes = data.bytes();
      call.out_place = data.data();
    }
    TE_RETURN_IF_ERROR(group_->Run(rank_, &call));
    return sends ? OkStatus() : host.Write(bytes, data.data(), data.bytes());
  }

  Status DoExchange(const Exec& exec, std::span<const Transfer> transfers) override {
    HostBuffers host(device_.get(), exec);
    Call call{.kind = CallKind::kExchange};
    for (const Transfer& t : transfers) {
      TE_ASSIGN_OR_RETURN(char* bytes, host.View(t.data.data(), t.data.bytes(), t.send));
      call.messages.push_back({.send = t.send,
                               .peer = t.peer,
                               .dtype = t.data.dtype(),
                               .count = t.data.elements(),
                               .data = bytes,
                               .place = t.data.data()});
    }
    TE_RETURN_IF_ERROR(host.Wait());
    TE_RETURN_IF_ERROR(group_->Run(rank_, &call));
    for (size_t i = 0; i < transfers.size(); ++i) {
      const Transfer& t = transfers[i];
      if (!t.send) TE_RETURN_IF_ERROR(host.Write(call.messages[i].data, t.to.data(), t.to.bytes()));
    }
    return OkStatus();
  }

  StatusOr<std::unique_ptr<Communicator>> DoSplit(int color, int key,
                                                  std::string_view name) override {
    Call call{.kind = CallKind::kSplit, .color = color, .key = key, .name = std::string(name)};
    TE_RETURN_IF_ERROR(group_->Run(rank_, &call));
    std::unique_ptr<Communicator> out;
    if (call.new_group != nullptr) {
      out = std::make_unique<InProcessCommunicator>(std::move(call.new_group), call.new_rank,
                                                    device_);
    }
    return out;
  }

 private:
  // A call that reads `in` and writes `out`.
  Status RunBetween(const Exec& exec, Call call, const ConstTensorView& in, const TensorView& out) {
    HostBuffers host(device_.get(), exec);
    TE_ASSIGN_OR_RETURN(char* from, host.View(in.data(), in.bytes(), true));
    TE_ASSIGN_OR_RETURN(char* to, host.View(out.data(), out.bytes(), false));
    TE_RETURN_IF_ERROR(host.Wait());
    call.dtype = in.dtype();
    call.in = from;
    call.in_bytes = in.bytes();
    call.out = to;
    call.out_bytes = out.bytes();
    call.in_place = in.data();
    call.out_place = out.data();
    TE_RETURN_IF_ERROR(group_->Run(rank_, &call));
    return host.Write(to, out.data(), out.bytes());
  }

  const std::shared_ptr<Group> group_;
  const int rank_;
  const std::shared_ptr<Device> device_;  // of the rank's thread alone
};

}  // namespace

StatusOr<std::vector<std::unique_ptr<Communicator>>> MakeInProcessWorld(
    const InProcessOptions& options) {
  constexpr int kMaxRanks = 4096;
  if (options.ranks < 1 || options.ranks > kMaxRanks) {
    return InvalidArgument("ranks is {}; expected 1 to {}", options.ranks, kMaxRanks);
  }
  if (options.time_limit.count() <= 0) {
    return InvalidArgument("time_limit is {} ms; expected more than 0", options.time_limit.count());
  }
  const std::shared_ptr<Group> world =
      in_process::World::NewWorld(options.ranks, options.time_limit);
  std::vector<std::unique_ptr<Communicator>> out;
  for (int r = 0; r < options.ranks; ++r) {
    TE_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, MakeDevice(options.device));
    out.push_back(std::make_unique<InProcessCommunicator>(world, r, std::move(device)));
  }
  return out;
}

Status RunRanks(const InProcessOptions& options,
                const std::function<Status(Communicator* world)>& rank) {
  TE_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<Communicator>> handles,
                      MakeInProcessWorld(options));
  struct Result {
    Status status;
    bool first = false;  // the failure came from this rank itself
  };
  std::vector<Result> results(handles.size());
  const auto run = [&](size_t r) {
    const std::unique_ptr<Communicator> handle = std::move(handles[r]);
    Result& result = results[r];
    result.status = rank(handle.get());
    if (!result.status.ok())
      result.first = static_cast<InProcessCommunicator*>(handle.get())->TryAbort(result.status);
  };
  std::vector<std::thread> threads;
  Status started;
  for (size_t r = 0; r < handles.size() && started.ok(); ++r) {
    try {
      threads.emplace_back(run, r);
    } catch (const std::system_error& error) {
      started = Internal("a thread for rank {} cannot be started: {}", r, error.what());
      handles[r]->Abort(started);
    }
  }
  for (std::thread& thread : threads) thread.join();
  TE_RETURN_IF_ERROR(started);
  for (size_t r = 0; r < results.size(); ++r)
    if (results[r].first) return results[r].status.WithContext(fmt::format("rank {}", r));
  for (const Result& result : results) TE_RETURN_IF_ERROR(result.status);
  return OkStatus();
}

}  // namespace te
