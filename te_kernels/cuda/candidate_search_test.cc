// The search on a card that is made up: it needs none, and its true order is known.
#include "te_kernels/cuda/candidate_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace te::cuda {
namespace {

constexpr double kLarge = 1e11, kSmall = 1e10;  // FLOP of a run: above and below the 30 GFLOP
constexpr int kShortLook = 3;                   // runs of one candidate

struct Candidate {
  double cold_ms;
  double power;              // at full clock, of the card's limit
  int fails_from = 1000000;  // which run of it is the first that fails
};

// Power goes with the square of the clock, so that a candidate above the limit ends at 1 /
// sqrt(power) of it, which the clock approaches with a time constant of 30 ms.
double SustainedMs(const Candidate& c) { return c.cold_ms * std::sqrt(std::max(1.0, c.power)); }

class Card : public CandidateTimer {
 public:
  explicit Card(std::vector<Candidate> candidates)
      : runs(candidates.size()), candidates_(std::move(candidates)) {}

  Status Enqueue(int index, int count) override {
    const Candidate& c = candidates_[static_cast<size_t>(index)];
    for (int i = 0; i < count; ++i) {
      if (++runs[static_cast<size_t>(index)] >= c.fails_from)
        return Internal("candidate {} fails", index);
      const double slow = now_ >= spell_begin && now_ < spell_begin + 100 ? 1.4 : 1;
      const double ms = c.cold_ms / clock_ * slow;
      now_ += ms;
      const double target = 1 / std::sqrt(std::max(1.0, c.power));
      clock_ += (target - clock_) * (1 - std::exp(-ms / 30));
    }
    return OkStatus();
  }
  StatusOr<float> Time(int index, int count) override {
    const double begin = now_;
    TE_RETURN_IF_ERROR(Enqueue(index, count));
    noise_state_ = noise_state_ * 6364136223846793005u + 1442695040888963407u;
    const double uniform = static_cast<double>(noise_state_ >> 11) * 0x1p-52 - 1;
    return static_cast<float>((now_ - begin) / count * (1 + noise * uniform));
  }

  double Now() override { return now_; }

  std::vector<int> runs;
  double noise = 0;           // at most, of a measured time
  double spell_begin = 1e30;  // 100 ms in which the card is slow by itself

 private:
  std::vector<Candidate> candidates_;
  double now_ = 0, clock_ = 1;
  uint64_t noise_state_ = 1;
};

constexpr double kLimit = 750;  // ms

int Chosen(Card* card, double flops, StepClock clock = StepClock::kAtTheLimit,
           double limit_ms = kLimit, bool hot = false) {
  const auto ms =
      SearchCandidates(card, static_cast<int>(card->runs.size()),
                       {.flops = flops, .clock = clock, .limit_ms = limit_ms, .hot = hot});
  EXPECT_TRUE(ms.ok()) << ms.status().message();
  return ms.ok() ? FastestOf(*ms) : -1;
}

// From cold the first is fastest, at the power limit the second: 0.71, 0.62, 0.71 ms.
const std::vector<Candidate> kFrugalSecond = {{0.50, 2.0}, {0.54, 1.3}, {0.56, 1.6}};

std::vector<Candidate> TenTimesSmaller(std::vector<Candidate> candidates) {
  for (Candidate& c : candidates) c.cold_ms /= 10;
  return candidates;
}

TEST(CandidateSearch, WhatIsLargeIsChosenAtThePowerLimitAndWhatIsSmallFromCold) {
  Card large(kFrugalSecond), small(TenTimesSmaller(kFrugalSecond));
  EXPECT_EQ(Chosen(&large, kLarge), 1);
  EXPECT_EQ(Chosen(&small, kSmall), 0);
}

// The first is 8% faster from cold, the second 5.6% at the limit, the third the best nowhere.
const std::vector<Candidate> kBestOfEither = {{0.50, 1.30}, {0.54, 1.00}, {0.53, 1.25}};

TEST(CandidateSearch, BetweenColdAndTheLimitBothCount) {
  EXPECT_LT(SustainedMs(kBestOfEither[1]), SustainedMs(kBestOfEither[0]));
  Card limit(kBestOfEither), between(kBestOfEither);
  EXPECT_EQ(Chosen(&limit, kLarge, StepClock::kAtTheLimit), 1);
  EXPECT_EQ(Chosen(&between, kLarge, StepClock::kBetween), 0);
  // The twin: what is 8% slower from cold and 24% faster at the limit is chosen in both.
  Card frugal(kFrugalSecond);
  EXPECT_EQ(Chosen(&frugal, kLarge, StepClock::kBetween), 1);
}

TEST(CandidateSearch, TimesBetweenAreGeometricMeans) {
  Card card(kBestOfEither);
  const auto ms = SearchCandidates(
      &card, 3, {.flops = kLarge, .clock = StepClock::kBetween, .limit_ms = 2 * kLimit});
  ASSERT_TRUE(ms.ok());
  // Half of TimesAreThoseOfTheLimit's bound, and half of what three runs from cold have warmed:
  // under 5 ms of the 30 that the clock takes.
  for (size_t i = 0; i < 3; ++i) {
    const double expected = std::sqrt(kBestOfEither[i].cold_ms * SustainedMs(kBestOfEither[i]));
    EXPECT_NEAR((*ms)[i], expected, 0.04 * expected) << i;
  }
}

// What is small is timed from cold, whatever the step's clock.
TEST(CandidateSearch, TheClockOfTheStepChangesNothingForWhatIsSmall) {
  Card limit(TenTimesSmaller(kBestOfEither)), between(TenTimesSmaller(kBestOfEither));
  const auto at_the_limit =
      SearchCandidates(&limit, 3, {.flops = kSmall, .clock = StepClock::kAtTheLimit});
  const auto in_between =
      SearchCandidates(&between, 3, {.flops = kSmall, .clock = StepClock::kBetween});
  ASSERT_TRUE(at_the_limit.ok() && in_between.ok());
  EXPECT_EQ(*at_the_limit, *in_between);
}

TEST(CandidateSearch, TimesAreThoseOfTheLimit) {
  Card card(kFrugalSecond);
  const auto ms = SearchCandidates(&card, 3, {.flops = kLarge, .limit_ms = 2 * kLimit});
  ASSERT_TRUE(ms.ok());
  // After 50 ms of settling the clock is within 0.2 * exp(-50 / 30) of its end (0.2: from another
  // candidate's), less still in the windows.
  for (size_t i = 0; i < 3; ++i)
    EXPECT_NEAR((*ms)[i], SustainedMs(kFrugalSecond[i]), 0.04 * SustainedMs(kFrugalSecond[i])) << i;
}

// What a step between cold and sustained would not gain by is not looked at: 20% slower from cold.
TEST(CandidateSearch, WhatIsMuchSlowerFromColdIsLeftBehind) {
  std::vector<Candidate> candidates = kFrugalSecond;
  candidates.push_back({0.60, 0.9});
  ASSERT_LT(SustainedMs(candidates[3]), SustainedMs(candidates[1]));
  Card card(candidates);
  EXPECT_EQ(Chosen(&card, kLarge), 1);
  EXPECT_EQ(card.runs[3], kShortLook);
  candidates[3].cold_ms = 0.55;  // the twin: near enough
  Card near(candidates);
  EXPECT_EQ(Chosen(&near, kLarge), 3);
}

TEST(CandidateSearch, OneCandidateIsLookedAtOnce) {
  for (const double flops : {kSmall, kLarge}) {
    Card card({{0.5, 2.0}});
    EXPECT_EQ(Chosen(&card, flops), 0);
    EXPECT_EQ(card.runs[0], kShortLook);
  }
}

TEST(CandidateSearch, OfEqualOnesTheFirstIsChosenAndTheFirstAreLookedAt) {
  // A look at the power limit takes 60 ms, the second ones of two candidates 360, heating 100.
  for (const auto& [flops, looked_at] : {std::pair{kSmall, 5}, {kLarge, 4}}) {
    Card card(std::vector<Candidate>(12, {0.5, 1.0}));
    EXPECT_EQ(Chosen(&card, flops), 0);
    for (int i = 0; i < 12; ++i)
      EXPECT_EQ(card.runs[static_cast<size_t>(i)] > kShortLook, i < looked_at) << i;
  }
}

TEST(CandidateSearch, WhatFailsIsNotChosenAndNotRunAgain) {
  for (const double flops : {kSmall, kLarge}) {
    std::vector<Candidate> candidates = {{0.50, 1.0}, {0.40, 1.0}, {0.55, 1.0}};
    candidates[1].fails_from = 2;
    Card card(candidates);
    const auto ms = SearchCandidates(&card, 3, {.flops = flops, .clock = StepClock::kAtTheLimit});
    ASSERT_TRUE(ms.ok());
    EXPECT_EQ(FastestOf(*ms), 0);
    EXPECT_EQ((*ms)[1], std::numeric_limits<float>::infinity());
    EXPECT_EQ(card.runs[1], 2);
  }
}

TEST(CandidateSearch, FailuresOfAllOrOfAFinalistAreErrors) {
  Card all({{0.5, 1.0, 1}, {0.4, 1.0, 3}});
  EXPECT_EQ(SearchCandidates(&all, 2, {.flops = kLarge, .clock = StepClock::kAtTheLimit})
                .status()
                .message(),
            "candidate 1 fails");
  for (const double flops : {kSmall, kLarge}) {
    for (const StepClock clock : {StepClock::kAtTheLimit, StepClock::kBetween}) {
      for (const int run : {1, 5, 100}) {  // of the look from cold, too
        Card later({{0.5, 1.0}, {0.5, 1.0, kShortLook + run}});
        if (flops == kSmall && run == 100) continue;  // five turns are over before
        EXPECT_EQ(SearchCandidates(&later, 2, {.flops = flops, .clock = clock}).status().message(),
                  "candidate 1 fails");
      }
    }
  }
}

// Times within 1%: what is chosen is the best, or within (1 + 0.01) / (1 - 0.01) of it, plus what
// the clock has not settled by (TimesAreThoseOfTheLimit), half of which any two have in common.
TEST(CandidateSearch, NoiseCostsNoMoreThanItself) {
  std::vector<Candidate> candidates;
  for (int i = 0; i < 4; ++i)
    candidates.push_back({0.5 + 0.015 * (i * 3 % 4), 1.2 + 0.2 * (i * 3 % 5)});
  double best = 1e30, worst = 0;
  for (const Candidate& c : candidates) {
    best = std::min(best, SustainedMs(c));
    worst = std::max(worst, SustainedMs(c));
  }
  ASSERT_GT(worst / best, 1.2);
  Card card(candidates);
  card.noise = 0.01;
  const int chosen = Chosen(&card, kLarge);
  EXPECT_LT(SustainedMs(candidates[static_cast<size_t>(chosen)]) / best, 1.02 + 0.02);
}

// What is asked for is kept to, but for the look that has begun: the short one at all candidates
// (8 of them, 3 runs each, 12 ms) is made in any case.
TEST(CandidateSearch, TheLimitIsKept) {
  std::vector<Candidate> candidates;
  for (int i = 0; i < 8; ++i) candidates.push_back({0.5 + 0.008 * i, 1.8 - 0.1 * i});
  for (const StepClock clock : {StepClock::kAtTheLimit, StepClock::kBetween}) {
    for (const double flops : {kSmall, kLarge}) {
      for (const double limit : {0., 10., 40., 200., 400., 500., 600., 750., 1500.}) {
        Card card(flops == kSmall ? TenTimesSmaller(candidates) : candidates);
        const int chosen = Chosen(&card, flops, clock, limit);
        EXPECT_LT(card.Now(), limit + 0.15 * limit + 20) << limit;
        if (limit == 0) {
          EXPECT_EQ(chosen, 0);
        }
        if (limit == 1500 && flops == kLarge && clock == StepClock::kAtTheLimit) {
          EXPECT_GE(chosen, 6);  // within 3% of the best
        }
      }
    }
  }
}

// Where the time is short, those that are fastest from cold are looked at; without any the first
// look decides.
TEST(CandidateSearch, LittleTimeIsWellSpent) {
  for (const auto& [limit, hot, chosen] : {std::tuple{0., false, 0},
                                           {40., false, 0},
                                           {550., false, 0},  // no time for two after the heating
                                           {520., true, 1},
                                           {750., false, 1},
                                           {750., true, 1}}) {
    Card card(kFrugalSecond);
    EXPECT_EQ(Chosen(&card, kLarge, StepClock::kAtTheLimit, limit, hot), chosen)
        << limit << " " << hot;
  }
}

TEST(CandidateSearch, AHotCardIsNotHeated) {
  const std::vector<Candidate> two(kFrugalSecond.begin(), kFrugalSecond.begin() + 2);
  Card cold(two), hot(two);
  EXPECT_EQ(Chosen(&cold, kLarge), 1);
  EXPECT_EQ(Chosen(&hot, kLarge, StepClock::kAtTheLimit, kLimit, true), 1);
  EXPECT_LT(hot.Now(), cold.Now() - 90);
}

// Whenever 100 ms come in which the card is 40% slower: of a finalist's two second looks they meet
// one at most. (Who is met in the first look, which ends before 380 ms, may not get a second.)
TEST(CandidateSearch, ASlowSpellDecidesNothing) {
  for (double begin = 380; begin < 1500; begin += 7) {
    for (const StepClock clock : {StepClock::kAtTheLimit, StepClock::kBetween}) {
      Card card(kFrugalSecond);
      card.spell_begin = begin;
      ASSERT_EQ(Chosen(&card, kLarge, clock), 1) << begin;
    }
  }
}

}  // namespace
}  // namespace te::cuda
