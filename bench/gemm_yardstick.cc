#include "bench/gemm_yardstick.h"

#include <utility>

#include "bench/stream_timer.h"
#ifdef TE_WITH_CPU
#include "bench/onednn_yardstick.h"
#endif

namespace te::bench {
namespace {

class DeviceYardstick : public GemmYardstick {
 public:
  static StatusOr<std::unique_ptr<GemmYardstick>> Make(Context* context, DType dtype, int64_t n) {
    auto yardstick = std::make_unique<DeviceYardstick>(context, n);
    for (Tensor* tensor : {&yardstick->x_, &yardstick->w_, &yardstick->y_}) {
      TE_ASSIGN_OR_RETURN(*tensor, context->NewTensor(dtype, {n, n}));
      TE_RETURN_IF_ERROR(context->kernels().random_fill(
          context->exec(), {.random = {.stream = static_cast<uint32_t>(tensor - &yardstick->x_)},
                            .out = tensor->view()}));
    }
    TE_ASSIGN_OR_RETURN(yardstick->timer_, MakeStreamTimer(context->device()));
    TE_RETURN_IF_ERROR(yardstick->Multiply());  // chooses an algorithm
    return std::unique_ptr<GemmYardstick>(std::move(yardstick));
  }

  DeviceYardstick(Context* context, int64_t n) : context_(context), n_(n) {}

  StatusOr<double> Run() override {
    TE_RETURN_IF_ERROR(timer_->Begin(context_->exec()));
    for (int i = 0; i < kTimes; ++i) TE_RETURN_IF_ERROR(Multiply());
    TE_RETURN_IF_ERROR(timer_->End(context_->exec()));
    TE_ASSIGN_OR_RETURN(const StreamTimer::Times times, timer_->Read());
    const double n = static_cast<double>(n_);
    return kTimes * 2 * n * n * n / times.whole;
  }

 private:
  static constexpr int kTimes = 10;

  Status Multiply() {
    return context_->kernels().gemm(context_->exec(),
                                    {.a = x_.view(), .b = w_.view(), .d = y_.view()});
  }

  Context* context_;
  int64_t n_;
  Tensor x_, w_, y_;
  std::unique_ptr<StreamTimer> timer_;
};

}  // namespace

StatusOr<std::unique_ptr<GemmYardstick>> MakeGemmYardstick(Context* context, DType dtype,
                                                           int64_t n) {
  if (!context->device().host_accessible()) return DeviceYardstick::Make(context, dtype, n);
#ifdef TE_WITH_CPU
  return MakeOnednnYardstick(dtype, n, context->options().num_threads);
#else
  return Unsupported("GEMM yardstick of device {}: this build has no oneDNN",
                     context->device().name());
#endif
}

}  // namespace te::bench
