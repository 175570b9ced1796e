// What a context on a CUDA device promises besides its operations: errors that leave it usable,
// values that the host reads without stopping the stream, choices that can be pinned.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "te_core/context.h"
#include "te_kernels/testing/checked.h"

namespace te {
namespace {

using test::Ok;
using test::Value;

std::unique_ptr<Context> NewContext() { return Value(Context::Create({.device = "cuda"})); }

// Of [1, 2): the bits below the exponent.
std::vector<uint16_t> BFloat16s(size_t count, uint32_t* random) {
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) {
    *random = *random * 1664525u + 1013904223u;
    value = static_cast<uint16_t>(0x3f80u | (*random >> 25));
  }
  return values;
}

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
  const std::string text =
      Value(context->device().TunedChoices(context->exec(), WhichChoices::kOfRun));
  EXPECT_NE(text.find("1024x1024x1024"), std::string::npos) << text;
  const auto other = NewContext();
  EXPECT_TRUE(Value(other->device().PinChoices(other->exec(), text, PinAs::kOwn)));
  EXPECT_EQ(gemm(other.get()), kernel);
  // Of another card: nothing happens. Broken: an error that names the line.
  std::string another = text;
  another.replace(another.find('|'), another.find('\n') - another.find('|'), "| another card");
  EXPECT_FALSE(Value(other->device().PinChoices(other->exec(), another, PinAs::kOwn)));
  for (const std::string& wrong : {text + "no shape\n", "another file\n" + text, std::string()}) {
    const auto broken = other->device().PinChoices(other->exec(), wrong, PinAs::kOwn);
    EXPECT_EQ(broken.status().code(), StatusCode::kCorruptData) << wrong;
    EXPECT_TRUE(broken.status().message().find("line ") != std::string::npos)
        << broken.status().message();
  }
  // Numbers that name no algorithm: the library is asked, and a choice made anew.
  std::string nonsense = text;
  const size_t colon = nonsense.rfind(" : ");
  nonsense = nonsense.substr(0, colon) + " : 1 2 3 4 5 6 7 8 9\n";
  const auto third = NewContext();
  EXPECT_TRUE(Value(third->device().PinChoices(third->exec(), nonsense, PinAs::kOwn)));
  EXPECT_TRUE(gemm(third.get()).starts_with("cublasLt"));
}

// d = a b of the shape, and the name of the kernel that ran.
std::string Multiply(Context* context, int64_t m, int64_t n, int64_t k) {
  const Tensor a = Value(context->NewZeroTensor(DType::kBFloat16, {m, k}));
  const Tensor b = Value(context->NewZeroTensor(DType::kBFloat16, {n, k}));
  const Tensor d = Value(context->NewTensor(DType::kBFloat16, {m, n}));
  KernelLog log;
  context->set_kernel_log(&log);
  Ok(context->kernels().gemm(context->exec(), {.a = a.view(), .b = b.view(), .d = d.view()}));
  context->set_kernel_log(nullptr);
  Ok(context->Synchronize());
  return log.records().at(0).kernel;
}

std::string Choices(Context* context, WhichChoices which) {
  return Value(context->device().TunedChoices(context->exec(), which));
}

int64_t Searches(Context* context) { return context->device().Searches(context->exec()).searches; }

size_t Lines(const std::string& text) {
  return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
}

TEST(CudaDevice, WhatIsPinnedIsNotSearchedAndIsNotFound) {
  const auto context = NewContext();
  const std::string kernel = Multiply(context.get(), 2048, 4096, 4096);
  EXPECT_EQ(Searches(context.get()), 1);
  const std::string found = Choices(context.get(), WhichChoices::kFound);
  EXPECT_EQ(Lines(found), 2u) << found;  // the header and the product
  for (const PinAs as : {PinAs::kOwn, PinAs::kKnown, PinAs::kShipped}) {
    const auto other = NewContext();
    EXPECT_TRUE(Value(other->device().PinChoices(other->exec(), found, as)));
    // What others know is the run's once it was used; what is its own always.
    EXPECT_EQ(Choices(other.get(), WhichChoices::kOfRun) == found, as == PinAs::kOwn);
    EXPECT_EQ(Multiply(other.get(), 2048, 4096, 4096), kernel);
    EXPECT_EQ(Searches(other.get()), 0);
    EXPECT_EQ(Choices(other.get(), WhichChoices::kOfRun), found);
    EXPECT_EQ(Lines(Choices(other.get(), WhichChoices::kFound)), 1u);
  }
}

TEST(CudaDevice, TheRunsOwnChoicesComeBeforeOthersWhateverTheOrder) {
  const auto context = NewContext();
  Multiply(context.get(), 2048, 4096, 4096);
  const std::string text = Choices(context.get(), WhichChoices::kFound);
  // Another of the library's algorithms, by numbers that it need not take: only what is pinned
  // counts here.
  std::string another = text;
  another.replace(another.rfind(" : "), std::string::npos, " : 1 2 3 4 0 6 7 8 9\n");
  for (const bool own_first : {true, false}) {
    const auto other = NewContext();
    const auto pin = [&](const std::string& choices, PinAs as) {
      EXPECT_TRUE(Value(other->device().PinChoices(other->exec(), choices, as)));
    };
    if (own_first) pin(text, PinAs::kOwn);
    pin(another, PinAs::kKnown);
    pin(another, PinAs::kShipped);
    if (!own_first) pin(text, PinAs::kOwn);
    EXPECT_EQ(Choices(other.get(), WhichChoices::kOfRun), text);
    Multiply(other.get(), 2048, 4096, 4096);
    EXPECT_EQ(Searches(other.get()), 0);
  }
}

// Of another driver: valid where the library's check takes it, for what ships.
TEST(CudaDevice, ShippedChoicesOfAnotherDriverHold) {
  const auto context = NewContext();
  Multiply(context.get(), 2048, 4096, 4096);
  std::string text = Choices(context.get(), WhichChoices::kFound);
  const size_t driver = text.find("| driver ") + 9;
  text.replace(driver, text.find(' ', driver) - driver, "12000");
  for (const PinAs as : {PinAs::kOwn, PinAs::kKnown, PinAs::kShipped}) {
    const auto other = NewContext();
    EXPECT_EQ(Value(other->device().PinChoices(other->exec(), text, as)), as == PinAs::kShipped);
    Multiply(other.get(), 2048, 4096, 4096);
    EXPECT_EQ(Searches(other.get()), as == PinAs::kShipped ? 0 : 1);
  }
}

TEST(CudaDevice, TheKeyNamesCardDriverAndLibraries) {
  const auto context = NewContext();
  const std::string key = Value(context->device().ChoicesKey(context->exec()));
  for (const char* part : {" | driver ", " | cublasLt ", " | cudnn "})
    EXPECT_NE(key.find(part), std::string::npos) << key;
  EXPECT_EQ(key.find('\n'), std::string::npos);
}

// Searches keep to the limit, and whoever watches is told of each when it begins and ends.
TEST(CudaDevice, SearchesAreWatchedAndBounded) {
  const auto context = NewContext();
  std::vector<SearchProgress> told;
  const auto configure = [&](double limit_seconds) {
    context->device().ConfigureSearches(
        context->exec(), {.limit_seconds = limit_seconds,
                          .observer = [&](const SearchProgress& one) { told.push_back(one); }});
  };
  configure(12);
  Multiply(context.get(), 2048, 4096, 4096);
  ASSERT_EQ(told.size(), 2u);
  EXPECT_FALSE(told[0].ended);
  EXPECT_TRUE(told[1].ended);
  EXPECT_EQ(told[1].totals.searches, 1);
  EXPECT_GT(told[1].candidates, 1);
  EXPECT_NE(told[1].problem.find("4096x2048x4096"), std::string::npos) << told[1].problem;
  EXPECT_LT(told[1].seconds, 2);  // 0.75, and loading the candidates' kernels
  EXPECT_EQ(told[1].limit_seconds, 12);
  // Nothing left: a look of milliseconds decides.
  configure(0);
  Multiply(context.get(), 2048, 4096, 11008);
  ASSERT_EQ(told.size(), 4u);
  EXPECT_LT(told[3].seconds, 0.5);
}

// Batches of other lengths: no search as long as the first one.
TEST(CudaDevice, AProductOfOtherTokensTakesTheChoiceOfItsKin) {
  const auto context = NewContext();
  Multiply(context.get(), 2048, 4096, 4096);
  const double first = context->device().Searches(context->exec()).seconds;
  for (const int64_t tokens : {1664, 1792, 3072}) Multiply(context.get(), tokens, 4096, 4096);
  const SearchTotals totals = context->device().Searches(context->exec());
  EXPECT_EQ(totals.searches, 4);
  EXPECT_LT(totals.seconds - first, first);
}

// What will not come again is not searched.
TEST(CudaDevice, WorkOnceIsNotSearched) {
  const auto context = NewContext();
  {
    const WorkOnce once(context.get());
    Multiply(context.get(), 2048, 4096, 4096);
  }
  EXPECT_EQ(Searches(context.get()), 0);
  Multiply(context.get(), 2048, 4096, 4096);
  EXPECT_EQ(Searches(context.get()), 1);
}

// What runs beside waits for what came before it, and what comes after the join for it: each kernel
// takes some 50 us here, so that one that did not wait would read what was there before.
TEST(CudaDevice, TheSecondQueueKeepsToItsPlace) {
  constexpr int64_t kSize = int64_t{16} << 20;
  const auto context = NewContext();
  ASSERT_TRUE(context->has_queue_beside());
  const auto vector = [&] { return Value(context->NewZeroTensor(DType::kFloat32, {kSize})); };
  const Tensor x = vector(), y = vector(), z = vector();
  const std::vector<float> ones(kSize, 1.0f);
  Ok(context->CopyFromHost(ones.data(), x.view()));
  const auto add = [&](const Exec& exec, const Tensor& a, const Tensor& b, const Tensor& out) {
    return context->kernels().add(exec, {.a = a, .b = b, .out = out.view()});
  };
  const auto work = [&]() -> Status {
    TE_RETURN_IF_ERROR(add(context->exec(), x, x, y));  // y = 2 x
    TE_RETURN_IF_ERROR(context->RunBeside([&](const Exec& exec) -> Status {
      EXPECT_TRUE(exec.beside);
      EXPECT_NE(exec.stream, context->exec().stream);
      TE_RETURN_IF_ERROR(add(exec, y, y, z));  // z = 4 x
      return add(exec, z, y, z);               // 6 x
    }));
    TE_RETURN_IF_ERROR(context->JoinBeside());
    TE_RETURN_IF_ERROR(context->JoinBeside());  // nothing to join
    return add(context->exec(), z, x, x);       // x = 7 x
  };
  const auto first = [&] {
    std::vector<float> host(kSize);
    Ok(context->CopyToHost(x, host.data()));
    for (const float value : host)
      if (value != host[0]) return std::nanf("");
    return host[0];
  };
  Ok(work());
  EXPECT_EQ(first(), 7);
  Device& device = context->device();
  Ok(device.BeginRecording(context->exec()));
  Ok(work());
  const auto recorded = Value(device.EndRecording(context->exec()));
  EXPECT_EQ(first(), 7);  // noted, not run
  Ok(recorded->Launch(context->exec()));
  Ok(recorded->Launch(context->exec()));
  EXPECT_EQ(first(), 7 * 7 * 7);
}

// A caller's stream: one of the lowest priority has nothing behind it, and both queues are it.
TEST(CudaDevice, BehindACallersStreamOfTheLowestPriorityIsNothing) {
  int lowest = 0, highest = 0;
  ASSERT_EQ(cudaDeviceGetStreamPriorityRange(&lowest, &highest), cudaSuccess);
  for (const int priority : {lowest, highest}) {
    cudaStream_t stream = nullptr;
    ASSERT_EQ(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority), cudaSuccess);
    {
      const auto context = Value(Context::Create({.device = "cuda", .stream = stream}));
      EXPECT_EQ(context->has_queue_beside(), priority == highest);
      Ok(context->RunBeside([&](const Exec& exec) {
        EXPECT_EQ(exec.stream == stream, priority == lowest);
        return OkStatus();
      }));
      Ok(context->JoinBeside());
      Ok(context->Synchronize());
    }
    EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  }
}

// The algorithm stays: so do the bits.
TEST(CudaDevice, ProductsThatLeaveMultiprocessorsGiveTheSameBits) {
  constexpr int64_t kSize = 2048;
  const auto context = NewContext();
  const Tensor a = Value(context->NewTensor(DType::kBFloat16, {kSize, kSize}));
  const Tensor b = Value(context->NewTensor(DType::kBFloat16, {kSize, kSize}));
  const Tensor d = Value(context->NewTensor(DType::kBFloat16, {kSize, kSize}));
  uint32_t random = 1;
  std::vector<uint16_t> values(static_cast<size_t>(kSize * kSize));
  for (const Tensor* tensor : {&a, &b}) {
    values = BFloat16s(values.size(), &random);
    Ok(context->CopyFromHost(values.data(), tensor->view()));
  }
  KernelLog log;
  context->set_kernel_log(&log);
  const auto product = [&](int margin) {
    context->set_sm_margin(margin);
    Ok(context->Zero(d.view()));
    Ok(context->kernels().gemm(context->exec(), {.a = a.view(), .b = b.view(), .d = d.view()}));
    std::vector<uint16_t> out(values.size());
    Ok(context->CopyToHost(d, out.data()));
    return out;
  };
  const std::vector<uint16_t> whole = product(0);
  const std::string kernel = log.records().back().kernel;
  EXPECT_EQ(product(8), whole);
  EXPECT_TRUE(log.records().back().kernel.starts_with(kernel + " on "))
      << log.records().back().kernel;
  EXPECT_EQ(product(8), whole);
  EXPECT_EQ(product(10000), whole);  // more than there are: ignored
  EXPECT_EQ(log.records().back().kernel, kernel);
  context->set_kernel_log(nullptr);
  // Nothing of it is a choice of its own.
  EXPECT_EQ(
      Value(context->device().TunedChoices(context->exec(), WhichChoices::kOfRun)).find(" SMs"),
      std::string::npos);
}

// Each launch begins with products' counters at zero, and what is between products stays between.
TEST(CudaDevice, RecordedProductsGiveTheBitsOfCalls) {
  constexpr int64_t kSize = 2048;
  const auto context = NewContext();
  const auto matrix = [&] {
    return Value(context->NewZeroTensor(DType::kBFloat16, {kSize, kSize}));
  };
  const Tensor a = matrix(), b = matrix(), twice = matrix(), first = matrix(), second = matrix();
  std::vector<uint16_t> values(static_cast<size_t>(kSize * kSize));
  uint32_t random = 1;
  for (const Tensor* tensor : {&a, &b}) {
    values = BFloat16s(values.size(), &random);
    Ok(context->CopyFromHost(values.data(), tensor->view()));
  }
  const auto run = [&] {
    const Exec& exec = context->exec();
    const KernelTable& kernels = context->kernels();
    Ok(kernels.gemm(exec, {.a = a.view(), .b = b.view(), .d = first.view()}));
    Ok(kernels.add(exec, {.a = first, .b = first, .out = twice.view()}));
    Ok(kernels.gemm(exec, {.a = twice.view(), .b = b.view(), .d = second.view()}));
  };
  const auto results = [&] {
    std::vector<std::vector<uint16_t>> got(2, values);
    Ok(context->CopyToHost(first, got[0].data()));
    Ok(context->CopyToHost(second, got[1].data()));
    Ok(context->Synchronize());
    for (const Tensor* tensor : {&first, &twice, &second}) Ok(context->Zero(tensor->view()));
    return got;
  };
  run();
  const auto want = results();
  EXPECT_NE(want[1], std::vector<uint16_t>(values.size()));
  Ok(context->device().BeginRecording(context->exec()));
  run();
  const auto work = Value(context->device().EndRecording(context->exec()));
  for (int launch = 0; launch < 3; ++launch) {
    Ok(work->Launch(context->exec()));
    EXPECT_EQ(results(), want) << "launch " << launch;
  }
}

// Attention's choices stand in the same text, behind the matrix products'.
TEST(CudaDevice, PinnedAttentionPlansGiveTheSameBits) {
  constexpr int64_t kTokens = 1024, kHeads = 8, kDim = 128;
  const Shape shape = {1, kTokens, kHeads, kDim};
  const auto attend = [&](Context* c) {
    std::vector<Tensor> t;
    for (int i = 0; i < 8; ++i) t.push_back(Value(c->NewZeroTensor(DType::kBFloat16, shape)));
    const Tensor lse = Value(c->NewTensor(DType::kFloat32, {1, kHeads, kTokens}));
    std::vector<uint16_t> values(static_cast<size_t>(kTokens * kHeads * kDim));
    uint32_t random = 1;
    for (int i = 0; i < 4; ++i) {
      values = BFloat16s(values.size(), &random);
      Ok(c->CopyFromHost(values.data(), t[static_cast<size_t>(i)].view()));
    }
    const AttentionForwardArgs forward = {.q = t[0].view(),
                                          .k = t[1].view(),
                                          .v = t[2].view(),
                                          .softmax_scale = 0.0625f,
                                          .out = t[4].view(),
                                          .lse = lse.view()};
    Ok(c->kernels().attention_forward(c->exec(), forward));
    Ok(c->kernels().attention_backward(c->exec(), {.q = t[0].view(),
                                                   .k = t[1].view(),
                                                   .v = t[2].view(),
                                                   .out = t[4].view(),
                                                   .dout = t[3].view(),
                                                   .lse = lse.view(),
                                                   .softmax_scale = 0.0625f,
                                                   .dq = t[5].view(),
                                                   .dk = t[6].view(),
                                                   .dv = t[7].view()}));
    std::vector<std::vector<uint16_t>> results;
    for (size_t i = 4; i < 8; ++i) {
      Ok(c->CopyToHost(t[i], values.data()));
      Ok(c->Synchronize());
      results.push_back(values);
    }
    return results;
  };
  const auto context = NewContext();
  const auto expected = attend(context.get());
  EXPECT_EQ(attend(context.get()), expected);
  const std::string text =
      Value(context->device().TunedChoices(context->exec(), WhichChoices::kOfRun));
  const size_t section = text.find("te cudnn attention choices");
  ASSERT_NE(section, std::string::npos) << text;
  EXPECT_NE(text.find("\nforward ", section), std::string::npos) << text;
  EXPECT_NE(text.find("\nbackward ", section), std::string::npos) << text;
  const auto other = NewContext();
  EXPECT_TRUE(Value(other->device().PinChoices(other->exec(), text, PinAs::kOwn)));
  EXPECT_EQ(attend(other.get()), expected);
  EXPECT_EQ(Value(other->device().TunedChoices(other->exec(), WhichChoices::kOfRun)), text);
  // One of the other kind has problems of its own in the same text, and takes no choice of these.
  const auto allowing = Value(Context::Create({.device = "cuda", .allow_nondeterministic = true}));
  EXPECT_TRUE(Value(allowing->device().PinChoices(allowing->exec(), text, PinAs::kOwn)));
  attend(allowing.get());
  const std::string both =
      Value(allowing->device().TunedChoices(allowing->exec(), WhichChoices::kOfRun));
  EXPECT_NE(both.find("\nbackward nondeterministic "), std::string::npos) << both;
  EXPECT_EQ(text.find("nondeterministic"), std::string::npos) << text;
  const auto again = NewContext();
  EXPECT_TRUE(Value(again->device().PinChoices(again->exec(), both, PinAs::kOwn)));
  EXPECT_EQ(attend(again.get()), expected);
  EXPECT_EQ(Value(again->device().TunedChoices(again->exec(), WhichChoices::kOfRun)), both);
  const auto broken = other->device().PinChoices(other->exec(), text + "no plan\n", PinAs::kOwn);
  EXPECT_EQ(broken.status().code(), StatusCode::kCorruptData);
  // Engines that do not exist: the library is asked, and a choice made anew.
  std::string nonsense = text.substr(0, section);
  std::istringstream lines(text.substr(section));
  for (std::string line; std::getline(lines, line);)
    nonsense += line.substr(0, line.rfind(" : ")) +
                (line.find(" : ") == std::string::npos ? "\n" : " : 12345 1:2\n");
  const auto third = NewContext();
  EXPECT_TRUE(Value(third->device().PinChoices(third->exec(), nonsense, PinAs::kOwn)));
  EXPECT_EQ(attend(third.get()).size(), expected.size());
  EXPECT_EQ(Value(third->device().TunedChoices(third->exec(), WhichChoices::kOfRun)).find("12345"),
            std::string::npos);
}

}  // namespace
}  // namespace te
