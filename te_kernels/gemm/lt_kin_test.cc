#include "te_kernels/gemm/lt_kin.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <string>
#include <utility>

namespace te {
namespace {

const std::string kFprop =
    "TN 4096x2048x11008 ld 11008,11008,4096,4096 bfloat16->bfloat16 batch 1:0,0,0 align "
    "256,256,256,256";
// Of transposed copies: rows as long as the step has tokens.
const std::string kWgrad =
    "TN 4096x4096x2048 ld 2048,2048,4096,4096 float8_e4m3->bfloat16 batch 1:0,0,0 align "
    "256,256,256,256 float8_e4m3 tensor * float8_e5m2 tensor split";

std::string With(std::string key, const std::string& what, const std::string& instead) {
  const size_t at = key.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return key.replace(at, what.size(), instead);
}

std::optional<double> Forward(const std::string& key, const std::string& other) {
  return LtDistance(key, other, LtTokens::kN);
}
std::optional<double> Weights(const std::string& key, const std::string& other) {
  return LtDistance(key, other, LtTokens::kK);
}

TEST(LtKin, TokensAloneMayDiffer) {
  EXPECT_EQ(Forward(kFprop, kFprop), 0.0);
  EXPECT_EQ(Forward(kFprop, With(kFprop, "x2048x", "x4096x")), 1.0);
  EXPECT_EQ(Forward(kFprop, With(kFprop, "x2048x", "x1024x")), 1.0);
  EXPECT_NEAR(*Forward(kFprop, With(kFprop, "x2048x", "x1664x")), std::log2(2048. / 1664), 1e-12);
  EXPECT_EQ(Forward(kFprop, With(kFprop, "x2048x", "x4112x")), std::nullopt);
  const std::string longer = With(kWgrad, "x2048 ld 2048,2048", "x3072 ld 3072,3072");
  EXPECT_NEAR(*Weights(kWgrad, longer), std::log2(1.5), 1e-12);
  // Rows that do not follow are another layout.
  EXPECT_EQ(Weights(kWgrad, With(kWgrad, "x2048 ld 2048,2048", "x3072 ld 3072,2560")),
            std::nullopt);
}

// A weight of another size is another product, however near.
TEST(LtKin, AnotherDimensionMayNot) {
  EXPECT_EQ(Weights(kFprop, With(kFprop, "x2048x", "x4096x")), std::nullopt);
  EXPECT_EQ(Forward(kFprop, With(kFprop, "4096x2048x11008 ld 11008,11008,4096,4096",
                                 "6144x2048x11008 ld 11008,11008,6144,6144")),
            std::nullopt);
  EXPECT_EQ(Forward(kFprop, With(kFprop, "x11008 ld 11008,11008", "x14336 ld 14336,14336")),
            std::nullopt);
  EXPECT_EQ(Weights(kWgrad, With(kWgrad, "4096x4096x2048", "4096x6144x2048")), std::nullopt);
}

TEST(LtKin, WhetherItAccumulatesMayDiffer) {
  const std::string accumulates = With(kWgrad, "->bfloat16", "->bfloat16 accumulate");
  EXPECT_EQ(Weights(kWgrad, accumulates), 0.0);
  EXPECT_EQ(Weights(accumulates, kWgrad), 0.0);
}

TEST(LtKin, WhatElseDiffersIsAnotherProduct) {
  for (const auto& [what, instead] : {std::pair{"TN", "NN"},
                                      {"ld 11008", "ld 11016"},
                                      {"->bfloat16", "->float32"},
                                      {"->bfloat16", "->bfloat16 bias"},
                                      {"batch 1", "batch 2"},
                                      {"align 256", "align 16"}})
    EXPECT_EQ(Forward(kFprop, With(kFprop, what, instead)), std::nullopt) << what;
  EXPECT_EQ(Weights(kWgrad, With(kWgrad, "split", "fast")), std::nullopt);
}

TEST(LtKin, HostileKeysAreLikeNothing) {
  for (const char* key : {"", " ", "TN", "TN 1x2", "TN 1x2x3", "TN 1x2x3 ld", "TN 1x2x3 ld 1,2,3",
                          "TN axbxc ld 1,2,3,4", "TN 99999999999999999999x2x3 ld 1,2,3,4",
                          "TN 0x2x3 ld 1,2,3,4", "TN -1x2x3 ld 1,2,3,4"}) {
    EXPECT_EQ(Forward(key, key), std::nullopt) << key;
    EXPECT_EQ(Weights(kFprop, key), std::nullopt) << key;
  }
}

}  // namespace
}  // namespace te
