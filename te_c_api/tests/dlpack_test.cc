// DLPack in and out: values, ownership, refusals. The structs are the specification's, spelled out
// a second time on purpose.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "te/te.h"

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct DLTensorForTest {
  void* data;
  int32_t device_type, device_id, ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensorForTest dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};
struct DLManagedTensorVersioned {
  uint32_t major, minor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  uint64_t flags;
  DLTensorForTest dl_tensor;
};

namespace {

class DLPack : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(te_context_create(nullptr, &context_), TE_STATUS_OK); }
  void TearDown() override { te_context_destroy(context_); }

  DLManagedTensor Source() {
    return {{data_ + 1, 1, 0, 2, {2, 32, 1}, shape_, nullptr, 4},
            &deleted_,
            [](DLManagedTensor* self) { ++*static_cast<int*>(self->manager_ctx); }};
  }

  te_context* context_ = nullptr;
  float data_[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  int64_t shape_[2] = {2, 3};
  int deleted_ = 0;
};

TEST_F(DLPack, ImportTakesOwnershipOnSuccess) {
  DLManagedTensor source = Source();
  te_tensor* tensor = nullptr;
  ASSERT_EQ(te_tensor_from_dlpack(context_, &source, &tensor), TE_STATUS_OK)
      << te_last_error_message();
  float read[6];
  ASSERT_EQ(te_tensor_read(tensor, read, sizeof(read)), TE_STATUS_OK);
  EXPECT_EQ(std::memcmp(read, data_ + 2, sizeof(read)), 0) << "data + byte_offset";
  EXPECT_EQ(deleted_, 0);
  te_tensor_destroy(tensor);
  EXPECT_EQ(deleted_, 1);
}

TEST_F(DLPack, ImportLeavesOwnershipOnFailure) {
  te_tensor* tensor = nullptr;
  DLManagedTensor source = Source();
  source.dl_tensor.device_type = 2;  // CUDA
  EXPECT_EQ(te_tensor_from_dlpack(context_, &source, &tensor), TE_STATUS_INVALID_ARGUMENT);
  source = Source();
  source.dl_tensor.dtype = {5, 64, 1};  // complex64
  EXPECT_EQ(te_tensor_from_dlpack(context_, &source, &tensor), TE_STATUS_UNSUPPORTED);
  EXPECT_NE(std::string(te_last_error_message()).find("code 5"), std::string::npos);
  source = Source();
  source.dl_tensor.ndim = 9;
  EXPECT_EQ(te_tensor_from_dlpack(context_, &source, &tensor), TE_STATUS_INVALID_ARGUMENT);
  source = Source();
  int64_t strides[2] = {-3, 1};
  source.dl_tensor.strides = strides;
  EXPECT_EQ(te_tensor_from_dlpack(context_, &source, &tensor), TE_STATUS_INVALID_ARGUMENT);
  EXPECT_EQ(tensor, nullptr);
  EXPECT_EQ(deleted_, 0);
}

TEST_F(DLPack, ExportOutlivesTheHandle) {
  const int64_t shape[2] = {2, 2};
  te_tensor* tensor = nullptr;
  ASSERT_EQ(te_tensor_create(context_, TE_DTYPE_BFLOAT16, 2, shape, &tensor), TE_STATUS_OK);
  const uint16_t bits[4] = {0x3f80, 0x4000, 0x4040, 0x4080};
  ASSERT_EQ(te_tensor_write(tensor, bits, sizeof(bits)), TE_STATUS_OK);
  DLManagedTensor* exported = nullptr;
  ASSERT_EQ(te_tensor_to_dlpack(tensor, &exported), TE_STATUS_OK) << te_last_error_message();
  te_tensor_destroy(tensor);
  EXPECT_EQ(exported->dl_tensor.ndim, 2);
  EXPECT_EQ(exported->dl_tensor.dtype.code, 4);
  EXPECT_EQ(exported->dl_tensor.dtype.bits, 16);
  EXPECT_EQ(exported->dl_tensor.strides[0], 2);
  EXPECT_EQ(std::memcmp(exported->dl_tensor.data, bits, sizeof(bits)), 0);
  exported->deleter(exported);
}

TEST_F(DLPack, VersionedRoundTripKeepsReadOnly) {
  DLManagedTensorVersioned source{
      1,         0,
      &deleted_, [](DLManagedTensorVersioned* self) { ++*static_cast<int*>(self->manager_ctx); },
      1,         Source().dl_tensor};
  te_tensor* tensor = nullptr;
  source.major = 2;
  EXPECT_EQ(te_tensor_from_dlpack_versioned(context_, &source, &tensor), TE_STATUS_UNSUPPORTED);
  source.major = 1;
  ASSERT_EQ(te_tensor_from_dlpack_versioned(context_, &source, &tensor), TE_STATUS_OK)
      << te_last_error_message();
  const float zeros[6] = {};
  EXPECT_EQ(te_tensor_write(tensor, zeros, sizeof(zeros)), TE_STATUS_INVALID_ARGUMENT);
  DLManagedTensor* plain = nullptr;
  EXPECT_EQ(te_tensor_to_dlpack(tensor, &plain), TE_STATUS_INVALID_ARGUMENT)
      << "DLManagedTensor cannot say read only";
  DLManagedTensorVersioned* exported = nullptr;
  ASSERT_EQ(te_tensor_to_dlpack_versioned(tensor, &exported), TE_STATUS_OK);
  EXPECT_EQ(exported->flags & 1, 1u);
  te_tensor_destroy(tensor);
  EXPECT_EQ(deleted_, 0) << "the export shares the memory";
  exported->deleter(exported);
  EXPECT_EQ(deleted_, 1);
}

}  // namespace
