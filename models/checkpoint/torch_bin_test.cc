// Files that torch.save wrote (testdata/make_testdata.py), and broken ones made from them.
#include "models/checkpoint/torch_bin.h"

#include <gtest/gtest.h>
#include <zip.h>

#include <functional>
#include <random>

#include "models/checkpoint/pickle.h"
#include "models/checkpoint/testing_files.h"

namespace te {
namespace {

const std::string kFolder = "models/checkpoint/testdata/";

std::unique_ptr<TensorFile> OpenGood(const std::string& name) {
  auto file = OpenTensorFile(kFolder + name);
  EXPECT_TRUE(file.ok()) << file.status().message();
  return file.ok() ? std::move(*file) : nullptr;
}

std::string OpenError(const std::string& path) {
  const auto file = OpenTensorFile(path);
  EXPECT_FALSE(file.ok()) << path;
  return file.ok() ? "" : file.status().message();
}

size_t IndexOf(const TensorFile& file, const std::string& name) {
  for (size_t i = 0; i < file.entries().size(); ++i) {
    if (file.entries()[i].name == name) return i;
  }
  ADD_FAILURE() << name << " is not in " << file.path();
  return 0;
}

std::vector<float> Read(const TensorFile& file, const std::string& name,
                        const CopyFromHost& copy = {}) {
  const size_t index = IndexOf(file, name);
  const TensorEntry& entry = file.entries()[index];
  std::vector<float> out(static_cast<size_t>(entry.elements), -1e9f);
  const Status status =
      file.ReadTensor(index, TensorView(out.data(), DType::kFloat32, Shape(entry.shape)), copy);
  EXPECT_TRUE(status.ok()) << status.message();
  return out;
}

// make_testdata.py's values(): element i of the whole tensor.
float Value(int64_t i) { return static_cast<float>(i) / 8 - 3; }

std::vector<float> Values(
    int64_t n, const std::function<int64_t(int64_t)>& element = [](int64_t i) { return i; }) {
  std::vector<float> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(Value(element(i)));
  return out;
}

TEST(TorchBin, EveryFloatingDTypeIsRead) {
  const auto file = OpenGood("dtypes.bin");
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->entries().size(), 13u);
  for (const char* name : {"f32", "f64", "f16", "bf16"})
    EXPECT_EQ(Read(*file, name), Values(6)) << name;
  const size_t bf16 = IndexOf(*file, "bf16");
  std::vector<bfloat16> raw(6);
  ASSERT_TRUE(file->ReadTensor(bf16, TensorView(raw.data(), DType::kBFloat16, {2, 3})).ok());
  for (int i = 0; i < 6; ++i) EXPECT_EQ(static_cast<float>(raw[i]), Value(i));
}

TEST(TorchBin, IntegersAreReadAsIntegersAndOtherTypesAreRefusedByName) {
  const auto file = OpenGood("dtypes.bin");
  ASSERT_NE(file, nullptr);
  std::vector<int64_t> wide(6);
  for (const char* name : {"i32", "i16", "u8"}) {
    ASSERT_TRUE(
        file->ReadTensor(IndexOf(*file, name), TensorView(wide.data(), DType::kInt64, {6})).ok())
        << name;
    for (int i = 0; i < 6; ++i) EXPECT_EQ(wide[i], i);
  }
  std::vector<int32_t> narrow(6);
  ASSERT_TRUE(
      file->ReadTensor(IndexOf(*file, "i8"), TensorView(narrow.data(), DType::kInt32, {6})).ok());
  EXPECT_EQ(narrow[0], -3);
  std::vector<uint8_t> bytes(6);
  const Status negative =
      file->ReadTensor(IndexOf(*file, "i8"), TensorView(bytes.data(), DType::kUInt8, {6}));
  EXPECT_NE(negative.message().find("a value does not fit uint8"), std::string::npos)
      << negative.message();
  for (const auto& [name, type] : {std::pair("f8", "F8_E4M3"),
                                   {"i64", "I64"},
                                   {"bool", "BOOL"},
                                   {"u16", "U16"},
                                   {"c64", "C64"}}) {
    const size_t index = IndexOf(*file, name);
    std::vector<float> out(6);
    const Status status = file->ReadTensor(
        index, TensorView(out.data(), DType::kFloat32, Shape(file->entries()[index].shape)));
    ASSERT_FALSE(status.ok()) << name;
    EXPECT_NE(status.message().find(std::string("tensor ") + name + ": stored as " + type),
              std::string::npos)
        << status.message();
  }
}

// Also deflated, and in a zip with 64-bit sizes.
TEST(TorchBin, StridedAndSharedStoragesAreGathered) {
  for (const char* name : {"views.bin", "deflated.bin", "zip64.bin"}) {
    SCOPED_TRACE(name);
    const auto file = OpenGood(name);
    ASSERT_NE(file, nullptr);
    ASSERT_EQ(file->entries().size(), 12u);
    EXPECT_EQ(Read(*file, "whole"), Values(24));
    EXPECT_EQ(Read(*file, "same"), Values(24));
    EXPECT_EQ(file->Find("transposed")->shape, (std::vector<int64_t>{6, 4}));
    EXPECT_EQ(Read(*file, "transposed"), Values(24));
    EXPECT_EQ(Read(*file, "rows"), Values(12, [](int64_t i) { return i + 6; }));
    EXPECT_EQ(Read(*file, "columns"), Values(12, [](int64_t i) { return i / 3 * 6 + i % 3 + 2; }));
    EXPECT_EQ(Read(*file, "every_second"),
              Values(4, [](int64_t i) { return i / 2 * 12 + i % 2 * 3; }));
    EXPECT_EQ(file->Find("permuted")->shape, (std::vector<int64_t>{4, 2, 3}));
    EXPECT_EQ(Read(*file, "permuted"),
              Values(24, [](int64_t i) { return i % 6 / 3 * 12 + i % 3 * 4 + i / 6; }));
    EXPECT_EQ(Read(*file, "expanded"), Values(12, [](int64_t i) { return i / 4; }));
    EXPECT_EQ(Read(*file, "expanded_inside"),
              Values(24, [](int64_t i) { return i % 3 * 4 + i / 6; }));
    EXPECT_EQ(Read(*file, "scalar"), Values(1));
    EXPECT_EQ(Read(*file, "empty").size(), 0u);
    EXPECT_EQ(Read(*file, "last"), Values(1, [](int64_t) { return 23; }));
  }
}

// The same archive with its entries stored instead of deflated.
void StoreEntries(const std::string& from, const std::string& to) {
  zip_t* source = zip_open(from.c_str(), ZIP_RDONLY, nullptr);
  zip_t* target = zip_open(to.c_str(), ZIP_CREATE | ZIP_TRUNCATE, nullptr);
  ASSERT_TRUE(source != nullptr && target != nullptr);
  for (zip_int64_t i = 0; i < zip_get_num_entries(source, 0); ++i) {
    const zip_uint64_t index = static_cast<zip_uint64_t>(i);
    const zip_int64_t added = zip_file_add(target, zip_get_name(source, index, 0),
                                           zip_source_zip(target, source, index, 0, 0, 0), 0);
    ASSERT_GE(added, 0);
    ASSERT_EQ(zip_set_file_compression(target, static_cast<zip_uint64_t>(added), ZIP_CM_STORE, 0),
              0);
  }
  ASSERT_EQ(zip_close(target), 0);
  zip_discard(source);
}

TEST(TorchBin, ElementsFarApartAreReadForward) {
  const std::string stored = FreshFolder("") + "/stored.bin";
  StoreEntries(kFolder + "far.bin", stored);
  EXPECT_GT(std::filesystem::file_size(stored), 1000000u);
  for (const std::string& path : {kFolder + "far.bin", stored}) {
    SCOPED_TRACE(path);
    const auto file = OpenTensorFile(path);
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_EQ(Read(**file, "column"), Values(1000));
    EXPECT_EQ(Read(**file, "rows"),
              (std::vector<float>{0, 0, Value(0), 0, 0, 0, Value(499), 0, 0, 0, Value(998), 0}));
    EXPECT_EQ(Read(**file, "corner"), (std::vector<float>{0, 0}));
  }
  const auto overlapping = OpenGood("overlapping.bin");
  ASSERT_NE(overlapping, nullptr);
  EXPECT_EQ(Read(*overlapping, "a"), Values(9, [](int64_t i) { return i / 3 * 2 + i % 3; }));
  std::vector<float> out(9);
  const Status status = overlapping->ReadTensor(IndexOf(*overlapping, "b"),
                                                TensorView(out.data(), DType::kFloat32, {3, 3}));
  EXPECT_NE(status.message().find("overlap itself"), std::string::npos) << status.message();
}

TEST(TorchBin, ReadsThroughAStagingCopy) {
  const auto file = OpenGood("views.bin");
  ASSERT_NE(file, nullptr);
  int64_t copied = 0;
  const auto values = Read(*file, "columns", [&](const void* from, TensorView to) {
    std::memcpy(to.data(), from, to.bytes());
    copied += to.elements();
    return OkStatus();
  });
  EXPECT_EQ(values, Values(12, [](int64_t i) { return i / 3 * 6 + i % 3 + 2; }));
  EXPECT_EQ(copied, 12);
}

TEST(TorchBin, ParametersModulesAndProtocols) {
  const auto parameters = OpenGood("parameters.bin");
  ASSERT_NE(parameters, nullptr);
  EXPECT_EQ(Read(*parameters, "weight"), Values(6));
  EXPECT_EQ(Read(*parameters, "frozen"), Values(6));
  const auto state_dict = OpenGood("state_dict.bin");
  ASSERT_NE(state_dict, nullptr);
  EXPECT_EQ(Read(*state_dict, "weight"), Values(6));
  EXPECT_EQ(state_dict->Find("count")->type, StoredType::kI64);
  for (const char* name : {"protocol3.bin", "protocol4.bin", "protocol5.bin"}) {
    const auto file = OpenGood(name);
    ASSERT_NE(file, nullptr);
    EXPECT_EQ(Read(*file, "b"), Values(300)) << name;
  }
  const auto unchecked = OpenGood("no_crc.bin");
  ASSERT_NE(unchecked, nullptr);
  EXPECT_EQ(Read(*unchecked, "a"), Values(6));
}

TEST(TorchBin, OtherFilesAreRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"legacy.bin", "before PyTorch 1.6"},
      {"legacy.bin",
       "python -c \"import torch; p = 'models/checkpoint/testdata/legacy.bin'; "
       "torch.save(torch.load(p"},
      {"nested.bin", "\"state_dict\" is a dict"},
      {"list.bin", "holds a list; expected a state dict"},
      {"number.bin", "\"step\" is an int; expected a tensor"},
      {"harmful.bin", "global posix.system, which is no tensor and no container: refused"},
      {"numpy.bin", "global numpy"},
      {"sparse.bin", "global torch._utils._rebuild_sparse_tensor"},
      {"big_endian.bin", "byte order \"big\""},
  };
  for (const auto& [name, expected] : cases) {
    const std::string error = OpenError(kFolder + name);
    EXPECT_NE(error.find(expected), std::string::npos) << error;
    EXPECT_NE(error.find(name), std::string::npos) << error;
  }
  const std::string folder = FreshFolder("");
  const std::pair<const char*, const char*> texts[] = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"},
      {"<!DOCTYPE html>", "an HTML page"},
      {"", "an empty file"},
      {"PK\x03\x04", "truncated?"},
  };
  for (const auto& [text, expected] : texts) {
    WriteFile(folder + "/pytorch_model.bin", text);
    EXPECT_NE(OpenError(folder + "/pytorch_model.bin").find(expected), std::string::npos) << text;
  }
}

// An archive of this pickle and one storage, both deflated.
std::string DeflatedArchive(const std::string& name, const std::string& pickle) {
  const std::string path = FreshFolder(name) + "/pytorch_model.bin";
  zip_t* archive = zip_open(path.c_str(), ZIP_CREATE | ZIP_EXCL, nullptr);
  const std::string storage(24, '\0');
  const auto add = [archive](const char* entry, const std::string& bytes) {
    zip_source_t* source = zip_source_buffer(archive, bytes.data(), bytes.size(), 0);
    EXPECT_GE(zip_file_add(archive, entry, source, 0), 0);
  };
  add("m/data.pkl", pickle);
  add("m/data/0", storage);
  EXPECT_EQ(zip_close(archive), 0);
  return path;
}

TEST(TorchBin, ASmallFileCannotAskForMuchMemory) {
  // A zip bomb: 16 MB of pickle in 16 KB.
  const std::string bomb = DeflatedArchive("bomb", "\x80\x02" + std::string(16'000'000, 'N'));
  EXPECT_LT(std::filesystem::file_size(bomb), 20'000u);
  EXPECT_NE(OpenError(bomb).find("data.pkl has 16000002 bytes, packed into"), std::string::npos);
  // Objects, references and memo entries, a byte each.
  for (const char op : {'N', '(', ']'}) {
    const std::string path = DeflatedArchive("flood", "\x80\x02" + std::string(60'000, op));
    EXPECT_NE(OpenError(path).find("more than "), std::string::npos) << op;
  }
  const std::string memo = DeflatedArchive("memo", "\x80\x04N" + std::string(60'000, '\x94'));
  EXPECT_NE(OpenError(memo).find("on the stack or in the memo"), std::string::npos);
  // A name that each of many tensors would have looked up.
  const std::string path = FreshFolder("name") + "/pytorch_model.bin";
  zip_t* archive = zip_open(path.c_str(), ZIP_CREATE | ZIP_EXCL, nullptr);
  zip_source_t* source = zip_source_buffer(archive, "", 0, 0);
  ASSERT_GE(zip_file_add(archive, ("m/" + std::string(5000, 'a')).c_str(), source, 0), 0);
  ASSERT_EQ(zip_close(archive), 0);
  EXPECT_NE(OpenError(path).find("a name of 5002 bytes"), std::string::npos);
}

// Reads whatever an opened file offers; what it holds does not matter.
void ReadAll(const TensorFile& file) {
  for (size_t i = 0; i < file.entries().size(); ++i) {
    const TensorEntry& entry = file.entries()[i];
    if (entry.elements > 100000 || entry.shape.size() > static_cast<size_t>(kMaxRank)) continue;
    std::vector<float> out(static_cast<size_t>(entry.elements));
    file.ReadTensor(i, TensorView(out.data(), DType::kFloat32, Shape(entry.shape))).IgnoreError();
  }
}

TEST(TorchBin, TruncationAtEveryByteIsAnError) {
  const std::string folder = FreshFolder("");
  const std::string path = folder + "/pytorch_model.bin";
  const std::string whole = ReadFile(kFolder + "views.bin");
  for (size_t n = 0; n < whole.size(); ++n) {
    WriteFile(path, whole.substr(0, n));
    EXPECT_NE(OpenError(path), "") << n;
  }
}

TEST(TorchBin, AFlippedByteNeverCrashesAndNeverPassesUnseenInTheData) {
  const std::string folder = FreshFolder("");
  const std::string path = folder + "/pytorch_model.bin";
  std::mt19937 random(1);
  for (const char* name : {"views.bin", "deflated.bin", "protocol4.bin", "parameters.bin"}) {
    const std::string whole = ReadFile(kFolder + name);
    for (int round = 0; round < 1500; ++round) {
      std::string bytes = whole;
      const int flips = 1 + round % 3;
      for (int i = 0; i < flips; ++i)
        bytes[random() % bytes.size()] ^= static_cast<char>(1 + random() % 255);
      WriteFile(path, bytes);
      const auto file = OpenTensorFile(path);
      if (file.ok()) ReadAll(**file);
    }
  }
  // The checksum of the archive catches a flip in the weights.
  std::string bytes = ReadFile(kFolder + "protocol3.bin");
  const float wanted = Value(150);
  const size_t at = bytes.find(std::string(reinterpret_cast<const char*>(&wanted), 4));
  ASSERT_NE(at, std::string::npos);
  bytes[at] ^= 1;
  WriteFile(path, bytes);
  const auto file = OpenTensorFile(path);
  ASSERT_TRUE(file.ok());
  std::vector<float> out(300);
  const Status status =
      (*file)->ReadTensor(IndexOf(**file, "b"), TensorView(out.data(), DType::kFloat32, {300}));
  EXPECT_NE(status.message().find("CRC"), std::string::npos) << status.message();
}

// Hand-made pickles. P: protocol, S: a storage of n float32 elements under key k.
std::string Op(std::string_view bytes) { return std::string(bytes); }
std::string Text(const std::string& text) {
  std::string out = "\x8c";
  out += static_cast<char>(text.size());
  return out += text;
}
std::string Int(int64_t value) {
  std::string out = "\x8a\x08";
  for (int i = 0; i < 8; ++i) out += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i));
  return out;
}
const std::string kProto("\x80\x02", 2);

std::string PickleError(const std::string& bytes) {
  const auto pickle = Pickle::Parse(bytes);
  EXPECT_FALSE(pickle.ok());
  return pickle.ok() ? "" : pickle.status().message();
}

TEST(Pickle, BrokenOnesAreErrorsWithTheirByte) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "byte 0 of the pickle: the pickle ends"},
      {kProto, "byte 2 of the pickle"},
      {Op("\x80\x09"), "pickle protocol 9"},
      {Op("\x80\x01"), "pickle protocol 1"},
      {kProto + ".", "the stack is empty"},
      {kProto + "0.", "the stack is empty"},
      {kProto + "(0.", "the stack is empty"},
      {kProto + "t.", "no mark"},
      {kProto + "1.", "no mark"},
      {kProto + "NN.", "objects are left"},
      {kProto + "(N.", "objects are left"},
      {kProto + "h\x05.", "memo 5 was never set"},
      {kProto + "q\x05", "the stack is empty"},
      {kProto + "N\x85\x86.", "the stack is empty"},
      {kProto + "]Na}sN.", "the stack is empty"},
      {kProto + "}(Nu.", "a key and no value"},
      {kProto + "(Nd.", "a key and no value"},
      {kProto + "NNa.", "items are added to None"},
      {kProto + "](NNu.", "items are added to a list"},
      {kProto + "X\xff\xff\xff\xff"
                "a",
       "a length of 4294967295 bytes"},
      {kProto + Op("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"),
       "a length of 18446744073709551615 bytes"},
      {kProto + "U\x05"
                "ab",
       "ends in the middle"},
      {kProto + Text("\xff") + ".", "not valid UTF-8"},
      {kProto + Op("\x8a\x09"
                   "123456789."),
       "an integer of 9 bytes"},
      {kProto + Op("\x95\xff\0\0\0\0\0\0\0") + "N.", "ends in the middle"},
      {Op(std::string_view("\x80\x04\x95\xff\0\0\0\0\0\0\0N.", 13)),
       "a frame of 255 bytes, 2 are left"},
      {kProto + "cos\nsystem\n.", "global os.system"},
      {kProto + "c__builtin__\neval\n.", "global __builtin__.eval"},
      {kProto + "c__torch__.models\nLlama\n.", "global __torch__.models.Llama"},
      {kProto + "ccollections\nOrdered", "ends in the middle"},
      {kProto + Text("os") + Text("system") + "\x93.", "global os.system"},
      {kProto + "NN\x93.", "a global whose name is no string"},
      {kProto + "NNR.", "None is called with None"},
      {kProto + "ctorch\nfloat32\n)R.", "it calls torch.float32: refused"},
      {kProto + "ctorch\nFloatStorage\n)R.", "it calls torch.FloatStorage: refused"},
      {kProto + "ccollections\nOrderedDict\nN\x85R.", "from 1 arguments"},
      {kProto + "ccollections\nOrderedDict\n)\x81.", "makes an object of a class (opcode 0x81)"},
      {kProto + "]Nb.", "sets the state of a list"},
      {kProto + "NQ.", "a persistent id that is no storage"},
      {kProto + "ctorch._utils\n_rebuild_tensor_v2\n)R.", "arguments of other kinds"},
      {kProto + "ctorch._utils\n_rebuild_parameter\n)R.", "of no tensor"},
      {kProto + "ctorch\nSize\nN\x85R.", "torch.Size of no tuple"},
      {kProto + "iN", "opcode 0x69"},
      {kProto + "Pabc\n.", "opcode 0x50"},
  };
  for (const auto& [bytes, expected] : cases) {
    const std::string error = PickleError(bytes);
    EXPECT_NE(error.find(expected), std::string::npos) << error << " instead of " << expected;
  }
}

// (storage, offset, shape, strides) of float32 under key "0" with `elements` elements.
std::string TensorPickle(int64_t elements, int64_t offset, const std::vector<int64_t>& shape,
                         const std::vector<int64_t>& strides) {
  std::string out = kProto + "ctorch._utils\n_rebuild_tensor_v2\n((" + Text("storage") +
                    "ctorch\nFloatStorage\n" + Text("0") + Text("cpu") + Int(elements) + "tQ" +
                    Int(offset);
  for (const auto& dims : {shape, strides}) {
    out += "(";
    for (int64_t d : dims) out += Int(d);
    out += "t";
  }
  return out + "\x89)tR.";
}

TEST(Pickle, TensorsOfWrongKindsAreRefused) {
  EXPECT_TRUE(Pickle::Parse(TensorPickle(6, 0, {2, 3}, {3, 1})).ok());
  EXPECT_NE(PickleError(TensorPickle(6, -1, {2}, {1})).find("at offset -1"), std::string::npos);
  EXPECT_NE(PickleError(TensorPickle(6, 0, {-2}, {1})).find("no integer from 0 on"),
            std::string::npos);
  EXPECT_NE(PickleError(TensorPickle(6, 0, {2}, {-1})).find("no integer from 0 on"),
            std::string::npos);
  EXPECT_NE(PickleError(TensorPickle(6, 0, {2}, {1, 1})).find("1 dimensions and 2 strides"),
            std::string::npos);
  EXPECT_NE(
      PickleError(TensorPickle(6, 0, std::vector<int64_t>(65, 1), std::vector<int64_t>(65, 1)))
          .find("65 dimensions"),
      std::string::npos);
  EXPECT_NE(PickleError(TensorPickle(-6, 0, {2}, {1})).find("a storage without key or size"),
            std::string::npos);
}

TEST(Pickle, ManyObjectsAndDeepNestingAreBounded) {
  EXPECT_NE(PickleError(kProto + std::string(kMaxPickleObjects + 1, 'N'))
                .find("more than 4000000 objects"),
            std::string::npos);
  EXPECT_NE(PickleError(kProto + std::string(kMaxPickleObjects + 1, '('))
                .find("more than 4000000 references"),
            std::string::npos);
  // A tuple in a tuple in a tuple ...: no recursion anywhere, so depth costs nothing.
  EXPECT_TRUE(Pickle::Parse(kProto + "N" + std::string(1000000, '\x85') + ".").ok());
  // A list that contains itself.
  EXPECT_TRUE(Pickle::Parse(kProto + "]q\x01h\x01"
                                     "a.")
                  .ok());
}

}  // namespace
}  // namespace te
