// Times single operations on a GPU: recorded work, so that the host's part does not count, over
// enough rotated buffers that nothing is left in the L2 cache from one use to the next.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "bench/stream_timer.h"
#include "te_core/context.h"

namespace te::bench {

class OperationTimer {
 public:
  // Enqueues one call that works on the buffers of this index, 0 .. rotations - 1.
  using Call = std::function<Status(int)>;

  static StatusOr<OperationTimer> Make(Context* context);

  // From now on matrix products run for some 30 ms before everything that is timed, so that the
  // card has the clock and the temperature of a training step: a card at its power limit lowers its
  // clock by a fifth.
  Status StayHot();

  // How many buffers a call that touches `bytes` needs.
  static int Rotations(int64_t bytes);
  // Median seconds of one call of each: they take turns, so that all see the same clocks.
  StatusOr<std::vector<double>> Seconds(const std::vector<Call>& calls, int rotations);
  StatusOr<double> Seconds(const Call& call, int rotations);
  // The same where each runs for 0.1 s and the last 30 ms of them count, the better of two turns:
  // at the card's power limit, if it is a product that takes it there.
  StatusOr<std::vector<double>> SustainedSeconds(const std::vector<Call>& calls, int rotations);

  // `count` tensors of normal random numbers (zeros would draw less power and run faster).
  StatusOr<std::vector<Tensor>> Random(DType dtype, const Shape& shape, int count);
  // Integers in [0, end).
  StatusOr<Tensor> Integers(int64_t count, int64_t end);
  // Bytes read and written a second by copies that read and write `bytes` together, one after the
  // other: what a launch of that size can reach.
  StatusOr<double> CopyBandwidth(int64_t bytes);

  Context* context() { return context_; }

 private:
  using Recorded = std::vector<std::unique_ptr<RecordedWork>>;
  // Each call on all of its buffers.
  StatusOr<Recorded> Record(const std::vector<Call>& calls, int rotations);

  Context* context_ = nullptr;
  std::unique_ptr<StreamTimer> timer_;
  std::vector<Tensor> heated_;
  std::unique_ptr<RecordedWork> heater_;  // null: nothing runs before what is timed
};

}  // namespace te::bench
