#include "models/train/optimizer_state_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "models/checkpoint/testing_files.h"
#include "models/checkpoint/testing_safetensors.h"
#include "te_kernels/testing/checked.h"

namespace te {
namespace {

using test::Ok;
using test::Value;

constexpr AdamWOptions kOptions = {.moments = DType::kFloat32,
                                   .master_weights = MasterWeights::kFloat32,
                                   .rounding = Rounding::kStochastic};

// Two bfloat16 parameters, a matrix and a vector, and their optimizer.
struct Trainer {
  explicit Trainer(const AdamWOptions& options = kOptions, uint64_t seed = 9,
                   int streams_before = 0, int64_t columns = 4)
      : context(Value(Context::Create({.num_threads = 1, .seed = seed}))) {
    for (int i = 0; i < streams_before; ++i) context->NewRandomStream();
    const Shape shapes[] = {{3, columns}, {5}};
    for (int i = 0; i < 2; ++i) {
      Parameter& p = parameters[i];
      p.name = i == 0 ? "weight" : "bias";
      p.value = Value(context->NewTensor(DType::kBFloat16, shapes[i]));
      for (int64_t k = 0; k < shapes[i].elements(); ++k)
        p.value.view().as<bfloat16>()[k] = bfloat16(0.25f + 0.125f * static_cast<float>(k + i));
      Ok(p.EnsureGrad(context->memory()));
      names[&p] = "model.layer." + p.name;
    }
    optimizer =
        Value(AdamWOptimizer::Create(context.get(), {&parameters[0], &parameters[1]}, options));
  }
  // Update `k`: the gradients depend on k alone.
  void Step(int k) {
    Ok(optimizer->BeginStep());
    StepScalars scalars = Value(context->ReadScalars());
    scalars.token_count = 1;
    Ok(context->WriteScalars(scalars));
    for (Parameter& p : parameters) {
      for (int64_t i = 0; i < p.grad.shape().elements(); ++i) {
        p.grad.view().as<bfloat16>()[i] =
            bfloat16(std::sin(static_cast<float>(7 * k + 3 * i) + 0.5f));
      }
    }
    Ok(optimizer->Step({.learning_rate = 1e-3f}));
  }
  // All that training changes.
  std::string Bytes() {
    std::string out;
    const auto add = [&out](const TensorView& view) {
      out.append(static_cast<const char*>(view.data()), view.bytes());
    };
    for (Parameter& p : parameters) add(p.value.view());
    for (const auto& tensor : optimizer->StateTensors()) add(tensor.value);
    const auto progress = Value(optimizer->ReadProgress());
    return out + fmt::format("{} {}", progress.step, progress.rng_offset);
  }
  void CopyValues(const Trainer& from) {
    for (int i = 0; i < 2; ++i) {
      const TensorView to = parameters[i].MutableValue();
      std::memcpy(to.data(), from.parameters[i].value.view().data(), to.bytes());
    }
  }

  std::unique_ptr<Context> context;
  Parameter parameters[2];
  ParameterNames names;
  std::unique_ptr<AdamWOptimizer> optimizer;
};

Status Load(const std::string& path, Trainer* trainer) {
  auto file = OptimizerStateFile::Open(path);
  if (!file.ok()) return file.status();
  return (*file)->Load(trainer->optimizer.get(), trainer->names);
}

class OptimizerStateFileTest : public testing::Test {
 protected:
  OptimizerStateFileTest() : path_(FreshFolder("state") + "/state.safetensors") {
    for (int k = 0; k < 3; ++k) trained_.Step(k);
    Ok(WriteOptimizerState(path_, trained_.optimizer.get(), trained_.names,
                           {.position = 4, .calibration_steps = 1, .run = {{"--x", "a b"}}}, {}));
  }
  // Every way to fail leaves everything as it was and says `part`.
  void ExpectRefused(const EditableSafetensors& file, StatusCode code, const std::string& part) {
    file.Write(path_);
    Trainer fresh;
    const std::string before = fresh.Bytes();
    const Status status = Load(path_, &fresh);
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(path_), std::string::npos) << status.message();
    EXPECT_EQ(fresh.Bytes(), before) << part;
  }
  EditableSafetensors Good() const { return EditableSafetensors::Read(good_); }
  void SetUp() override {
    good_ = path_ + ".good";
    std::filesystem::copy_file(path_, good_);
  }

  std::string path_, good_;
  Trainer trained_;
};

// In a context whose streams were given out otherwise, too.
TEST_F(OptimizerStateFileTest, ALoadedOptimizerGoesOnBitForBit) {
  const auto file = Value(OptimizerStateFile::Open(path_));
  EXPECT_EQ(file->info().step, 3);
  EXPECT_EQ(file->info().position, 4);
  EXPECT_EQ(file->info().calibration_steps, 1);
  EXPECT_EQ(file->info().seed, 9u);
  EXPECT_EQ(file->info().run.at("--x"), "a b");
  EXPECT_EQ(file->parameters(), 2);
  for (const int streams_before : {0, 3}) {
    Trainer loaded(kOptions, 9, streams_before);
    loaded.CopyValues(trained_);
    Ok(Load(path_, &loaded));
    ASSERT_EQ(loaded.Bytes(), trained_.Bytes());
    Trainer twin(kOptions, 9, streams_before);
    twin.CopyValues(trained_);  // but not the state
    Trainer whole;
    for (int k = 0; k < 5; ++k) whole.Step(k);
    for (int k = 3; k < 5; ++k) {
      loaded.Step(k);
      twin.Step(k);
    }
    EXPECT_EQ(loaded.Bytes(), whole.Bytes());
    EXPECT_NE(twin.Bytes(), whole.Bytes());
  }
}

TEST_F(OptimizerStateFileTest, ValuesAreWrittenWhereTheyAreWanted) {
  const std::string path = path_ + ".values";
  const Parameter* wanted = &trained_.parameters[1];
  Ok(WriteOptimizerState(path, trained_.optimizer.get(), trained_.names, {},
                         [wanted](const Parameter& p) { return &p == wanted; }));
  Trainer loaded;
  const uint64_t version = loaded.parameters[1].version;
  Ok(Load(path, &loaded));
  EXPECT_EQ(std::memcmp(loaded.parameters[1].value.view().data(), wanted->value.view().data(),
                        wanted->value.view().bytes()),
            0);
  EXPECT_NE(std::memcmp(loaded.parameters[0].value.view().data(),
                        trained_.parameters[0].value.view().data(),
                        trained_.parameters[0].value.view().bytes()),
            0);
  EXPECT_GT(loaded.parameters[1].version, version);
}

TEST_F(OptimizerStateFileTest, MomentsOfBfloat16ComeBack) {
  const AdamWOptions options = {.moments = DType::kBFloat16, .rounding = Rounding::kStochastic};
  Trainer trained(options), loaded(options);
  for (int k = 0; k < 2; ++k) trained.Step(k);
  const std::string path = path_ + ".bf16";
  Ok(WriteOptimizerState(path, trained.optimizer.get(), trained.names, {}, {}));
  loaded.CopyValues(trained);
  Ok(Load(path, &loaded));
  EXPECT_EQ(loaded.Bytes(), trained.Bytes());
  auto file = EditableSafetensors::Read(path);
  file.Tensor("model.layer.bias.exp_avg").bytes[5] = '\x7f';  // 0x7f..: NaN
  file.Tensor("model.layer.bias.exp_avg").bytes[4] = '\xc1';
  file.Write(path);
  const Status status = Load(path, &loaded);
  EXPECT_EQ(status.code(), StatusCode::kCorruptData);
  EXPECT_NE(status.message().find("model.layer.bias.exp_avg: element 2 is nan"), std::string::npos)
      << status.message();
}

TEST_F(OptimizerStateFileTest, TensorsThatAreNotTheOptimizersAreNamed) {
  const std::string m = "model.layer.weight.exp_avg";
  auto file = Good();
  file.Tensor(m).type = StoredType::kBF16;
  file.Tensor(m).bytes.resize(24);
  ExpectRefused(file, StatusCode::kInvalidArgument,
                "tensor " + m + " is BF16 [3, 4]; expected F32 [3, 4]");
  file = Good();
  file.Tensor(m).shape = {4, 3};
  ExpectRefused(file, StatusCode::kInvalidArgument,
                "tensor " + m + " is F32 [4, 3]; expected F32 [3, 4]");
  for (const char* suffix : {".exp_avg", ".exp_avg_sq", ".master"}) {
    file = Good();
    const std::string name = std::string("model.layer.bias") + suffix;
    file.Erase(name);
    ExpectRefused(file, StatusCode::kInvalidArgument,
                  "tensor " + name + " is missing; expected F32 [5]");
  }
  file = Good();
  file.tensors.push_back(file.Tensor(m));
  file.tensors.back().name = "other.exp_avg";
  ExpectRefused(file, StatusCode::kInvalidArgument,
                "tensor other.exp_avg is none of the optimizer's");
  file = Good();
  for (EditableTensor& tensor : file.tensors) tensor.name.replace(0, 11, "model.stage");
  ExpectRefused(file, StatusCode::kInvalidArgument, "tensor model.layer.weight.exp_avg is missing");
  file = Good();
  file.tensors.push_back({"model.layer.bias.param", StoredType::kF32, {5}, std::string(20, '\0')});
  ExpectRefused(file, StatusCode::kInvalidArgument,
                "tensor model.layer.bias.param is F32 [5]; expected BF16 [5]");
  // The other way round: a file with masters, an optimizer without.
  Trainer without({.rounding = Rounding::kStochastic});
  Good().Write(path_);
  const Status status = Load(path_, &without);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find(".master is none of the optimizer's"), std::string::npos)
      << status.message();
}

TEST_F(OptimizerStateFileTest, ValuesThatNoAdamWLeavesAreNamed) {
  const std::string m = "model.layer.weight.exp_avg", v = "model.layer.weight.exp_avg_sq";
  auto file = Good();
  file.Set(m, 7, std::numeric_limits<float>::quiet_NaN());
  ExpectRefused(file, StatusCode::kCorruptData, "tensor " + m + ": element 7 is nan; expected a");
  file = Good();
  file.Set(v, 3, -1e-3f);
  ExpectRefused(file, StatusCode::kCorruptData,
                "tensor " + v + ": element 3 is -0.001; expected 0 or more");
  file = Good();
  file.Set("model.layer.bias.exp_avg_sq", 4, std::numeric_limits<float>::quiet_NaN());
  ExpectRefused(file, StatusCode::kCorruptData, "model.layer.bias.exp_avg_sq: element 4 is nan");
}

TEST_F(OptimizerStateFileTest, MetadataIsChecked) {
  for (const char* key : {"step", "position", "calibration_steps", "fp8_tensors", "seed",
                          "rng_offset", "random_stream.model.layer.bias"}) {
    for (const char* value : {"-1", "1.5", "", "x", "99999999999999999999"}) {
      auto file = Good();
      file.Metadata(key) = value;
      ExpectRefused(file, StatusCode::kCorruptData,
                    fmt::format("metadata {}: is \"{}\"; expected a whole number", key, value));
    }
    auto file = Good();
    file.EraseMetadata(key);
    ExpectRefused(file, StatusCode::kCorruptData, fmt::format("metadata {} is missing", key));
  }
  auto file = Good();
  file.Metadata("step") = "9223372036854775807";  // the next step would be none
  ExpectRefused(file, StatusCode::kCorruptData, "metadata step: is \"9223372036854775807\"");
  file = Good();
  file.Metadata("te_optimizer_state") = "2";
  ExpectRefused(file, StatusCode::kCorruptData, "this build reads version 1");
  file.EraseMetadata("te_optimizer_state");
  ExpectRefused(file, StatusCode::kCorruptData, "no optimizer state file of te");
  file = Good();
  file.Metadata("stepp") = "3";
  ExpectRefused(file, StatusCode::kCorruptData, "metadata stepp: is unknown");
  file = Good();
  file.Metadata("random_stream.other") = "3";
  ExpectRefused(file, StatusCode::kCorruptData, "3 random streams; expected 2");
  file = Good();
  file.Metadata("seed") = "10";
  ExpectRefused(file, StatusCode::kInvalidArgument, "written with seed 10, the context's is 9");
}

TEST_F(OptimizerStateFileTest, BytesThatAreNoSafetensorsAreRefused) {
  const std::string bytes = ReadFile(good_);
  Trainer fresh;
  const std::string before = fresh.Bytes();
  // Cut anywhere, and longer than it says.
  for (size_t size = 0; size <= bytes.size(); size += 7) {
    WriteFile(path_, bytes.substr(0, std::min(size, bytes.size() - 1)));
    EXPECT_EQ(Load(path_, &fresh).code(), StatusCode::kCorruptData) << size;
  }
  WriteFile(path_, bytes + "x");
  EXPECT_EQ(Load(path_, &fresh).code(), StatusCode::kCorruptData);
  std::string huge = bytes;
  std::memset(huge.data(), 0x7f, 7);  // a header of 2^55 bytes
  WriteFile(path_, huge);
  const Status status = Load(path_, &fresh);
  EXPECT_EQ(status.code(), StatusCode::kCorruptData);
  EXPECT_NE(status.message().find("header length"), std::string::npos) << status.message();
  EXPECT_EQ(Load(path_ + ".none", &fresh).code(), StatusCode::kNotFound);
  EXPECT_EQ(fresh.Bytes(), before);
}

}  // namespace
}  // namespace te
