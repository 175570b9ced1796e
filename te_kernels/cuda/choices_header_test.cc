#include "te_kernels/cuda/choices_header.h"

#include <gtest/gtest.h>

namespace te::cuda {
namespace {

std::string Header(std::string_view card, int driver, size_t version,
                   std::string_view title = "te cublasLt choices",
                   std::string_view library = "cublasLt") {
  return ChoicesHeader(title, std::string(card) + " | driver " + std::to_string(driver), library,
                       version);
}

TEST(ChoicesHeader, NamesCardDriverAndLibrary) {
  EXPECT_EQ(Header("NVIDIA H200", 13000, 130100),
            "te cublasLt choices 2 | NVIDIA H200 | driver 13000 | cublasLt 130100");
}

TEST(ChoicesHeader, OwnAndKnownOnesHoldWhereNothingDiffers) {
  const std::string ours = Header("NVIDIA H200", 13000, 130100);
  for (const PinAs as : {PinAs::kOwn, PinAs::kKnown}) {
    EXPECT_TRUE(ChoicesHold(ours, ours, 132, as));
    EXPECT_FALSE(ChoicesHold(Header("NVIDIA H100 80GB HBM3", 13000, 130100), ours, 132, as));
    EXPECT_FALSE(ChoicesHold(Header("NVIDIA H200", 12080, 130100), ours, 132, as));
    EXPECT_FALSE(ChoicesHold(Header("NVIDIA H200", 13000, 130101), ours, 132, as));
  }
}

TEST(ChoicesHeader, ShippedOnesHoldForTheChipWhateverTheDriver) {
  const std::string h200 = Header("NVIDIA H200", 13000, 130100);
  const auto hold = [&](const std::string& ours, int sms) {
    return ChoicesHold(h200, ours, sms, PinAs::kShipped);
  };
  for (const char* card : {"NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA H100 NVL",
                           "NVIDIA GH200 480GB", "NVIDIA H200 NVL"})
    EXPECT_TRUE(hold(Header(card, 12080, 130105), 132)) << card;
  // Another chip, or fewer of its multiprocessors.
  for (const char* card : {"NVIDIA A100-SXM4-80GB", "NVIDIA B200", "NVIDIA H2000", "NVIDIA H20",
                           "Tesla NVIDIA H200", ""})
    EXPECT_FALSE(hold(Header(card, 13000, 130100), 132)) << card;
  EXPECT_FALSE(hold(Header("NVIDIA H100 PCIe", 13000, 130100), 114));
  EXPECT_TRUE(hold(Header("NVIDIA H200", 12080, 130100), 114));  // the very card
  // Another library, version or text.
  EXPECT_FALSE(hold(Header("NVIDIA H200", 13000, 130200), 132));
  EXPECT_FALSE(hold(Header("NVIDIA H200", 13000, 120100), 132));
  EXPECT_FALSE(hold(Header("NVIDIA H200", 13000, 130100, "te cudnn attention choices"), 132));
  EXPECT_FALSE(hold(Header("NVIDIA H200", 13000, 130100, "te cublasLt choices", "cublas"), 132));
}

TEST(ChoicesHeader, HostileLinesHoldNowhere) {
  const std::string ours = Header("NVIDIA H200", 13000, 130100);
  for (const char* line :
       {"", " | ", " |  |  | ", "te cublasLt choices 2", "te cublasLt choices 2 | NVIDIA H200",
        "te cublasLt choices 2 | NVIDIA H200 | driver 1 | cublasLt",
        "te cublasLt choices 2 | NVIDIA H200 | driver 1 | cublasLt x",
        "te cublasLt choices 2 | NVIDIA H200 | driver 1 | cublasLt 99999999999999999999999",
        "te cublasLt choices 2 | NVIDIA H200 | 13000 | cublasLt 130100",
        "te cublasLt choices 3 | NVIDIA H200 | driver 1 | cublasLt 130100",
        "te cublasLt choices 2 | NVIDIA H200 | driver 1 | cublasLt 130100 | more"})
    EXPECT_FALSE(ChoicesHold(line, ours, 132, PinAs::kShipped)) << line;
}

}  // namespace
}  // namespace te::cuda
