// What a context on a CUDA device promises besides its operations: errors that leave it usable,
// values that the host reads without stopping the stream, choices that can be pinned.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "te_core/context.h"

namespace te {
namespace {

template <typename T>
T Value(StatusOr<T> value) {
  if (!value.ok()) {
    ADD_FAILURE() << value.status().message();
    std::abort();
  }
  return std::move(value).value();
}

void Ok(const Status& status) { ASSERT_TRUE(status.ok()) << status.message(); }

std::unique_ptr<Context> NewContext() { return Value(Context::Create({.device = "cuda"})); }

TEST(CudaDevice, OutOfMemorySaysWhatWasAskedAndFreeAndTheContextGoesOn) {
  const auto context = NewContext();
  const auto huge = context->NewTensor(DType::kFloat32, {int64_t{1} << 45});
  ASSERT_FALSE(huge.ok());
  EXPECT_EQ(huge.status().code(), StatusCode::kOutOfMemory);
  EXPECT_NE(huge.status().message().find(std::to_string(int64_t{1} << 47)), std::string::npos)
      << huge.status().message();
  EXPECT_NE(huge.status().message().find("are free"), std::string::npos);
  // Scratch memory that cannot grow, in the middle of an operation's arguments.
  EXPECT_EQ(context->scratch()->Allocate(DType::kUInt8, {int64_t{1} << 46}).status().code(),
            StatusCode::kOutOfMemory);
  const std::vector<float> values = {1, 2, 3};
  Tensor x = Value(context->NewTensor(DType::kFloat32, {3}));
  Ok(context->CopyFromHost(values.data(), x.view()));
  Tensor y = Value(context->NewTensor(DType::kFloat32, {3}));
  Ok(context->kernels().add(context->exec(), {.a = x, .b = x, .out = y.view()}));
  std::vector<float> got(3);
  Ok(context->CopyToHost(y, got.data()));
  EXPECT_EQ(got, (std::vector<float>{2, 4, 6}));
}

TEST(CudaDevice, DevicesThatAreNotThereAreRefusedByName) {
  for (const char* name : {"cuda:99", "cuda:", "cuda:x", "cuda:-1", "rocm"}) {
    const auto context = Context::Create({.device = name});
    ASSERT_FALSE(context.ok()) << name;
    EXPECT_EQ(context.status().code(), StatusCode::kUnsupported) << context.status().message();
    EXPECT_NE(context.status().message().find(name), std::string::npos)
        << context.status().message();
  }
}

// A copy enqueued before a change holds what was there before it.
TEST(CudaDevice, AMirrorHoldsTheMomentItWasFetched) {
  const auto context = NewContext();
  Tensor x = Value(context->NewZeroTensor(DType::kInt32, {1000}));
  const auto mirror = Value(context->device().NewHostMirror(4000));
  std::vector<int32_t> ones(1000, 1);
  Ok(mirror->Fetch(context->exec(), x.view().data()));
  Ok(context->CopyFromHost(ones.data(), x.view()));
  ones.assign(1000, 7);  // the caller's buffer is free at once
  const auto* zeros = static_cast<const int32_t*>(Value(mirror->Wait()));
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(zeros[i], 0);
  Ok(mirror->Fetch(context->exec(), x.view().data()));
  const auto* copied = static_cast<const int32_t*>(Value(mirror->Wait()));
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(copied[i], 1);
}

// More small copies than the staging ring has slots, each of other bytes.
TEST(CudaDevice, SmallCopiesKeepTheirOrderAndBytes) {
  const auto context = NewContext();
  Tensor x = Value(context->NewTensor(DType::kInt32, {100, 256}));
  for (int32_t i = 0; i < 100; ++i) {
    const std::vector<int32_t> row(256, i);
    Ok(context->CopyFromHost(row.data(), x.view().Select(0, i)));
  }
  std::vector<int32_t> got(25600);
  Ok(context->CopyToHost(x, got.data()));
  for (int32_t i = 0; i < 25600; ++i) ASSERT_EQ(got[static_cast<size_t>(i)], i / 256);
}

TEST(CudaDevice, PinnedChoicesAreTakenOverAndOthersRefused) {
  const auto context = NewContext();
  const auto gemm = [](Context* c) {
    const Tensor a = Value(c->NewZeroTensor(DType::kBFloat16, {1024, 1024}));
    const Tensor b = Value(c->NewZeroTensor(DType::kBFloat16, {1024, 1024}));
    const Tensor d = Value(c->NewTensor(DType::kBFloat16, {1024, 1024}));
    KernelLog log;
    c->set_kernel_log(&log);
    Ok(c->kernels().gemm(c->exec(), {.a = a.view(), .b = b.view(), .d = d.view()}));
    c->set_kernel_log(nullptr);
    Ok(c->Synchronize());
    return log.records().at(0).kernel;
  };
  const std::string kernel = gemm(context.get());
  const std::string text = Value(context->device().TunedChoices(context->exec()));
  EXPECT_NE(text.find("1024x1024x1024"), std::string::npos) << text;
  const auto other = NewContext();
  EXPECT_TRUE(Value(other->device().PinChoices(other->exec(), text)));
  EXPECT_EQ(gemm(other.get()), kernel);
  // Of another card: nothing happens. Broken: an error that names the line.
  EXPECT_FALSE(Value(other->device().PinChoices(other->exec(), "another card\n" + text)));
  const auto broken = other->device().PinChoices(other->exec(), text + "no shape\n");
  EXPECT_EQ(broken.status().code(), StatusCode::kCorruptData);
  // Numbers that name no algorithm: the library is asked, and a choice made anew.
  std::string nonsense = text;
  const size_t colon = nonsense.rfind(" : ");
  nonsense = nonsense.substr(0, colon) + " : 1 2 3 4 5 6 7 8 9\n";
  const auto third = NewContext();
  EXPECT_TRUE(Value(third->device().PinChoices(third->exec(), nonsense)));
  EXPECT_TRUE(gemm(third.get()).starts_with("cublasLt"));
}

}  // namespace
}  // namespace te
