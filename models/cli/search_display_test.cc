#include "models/cli/search_display.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace te {
namespace {

// What is printed while `searches` searches of `each` seconds run, and a report after them.
std::string Shown(bool terminal, int searches, double each, const std::string& kept_in) {
  std::string shown;
  SearchDisplay display([&shown](std::string_view text) { shown += text; }, terminal);
  SearchTotals totals;
  for (int i = 0; i < searches; ++i) {
    display.OnSearch({.totals = totals, .limit_seconds = 12});
    ++totals.searches;
    totals.seconds += each;
    display.OnSearch({.ended = true, .totals = totals, .limit_seconds = 12});
  }
  display.Report(kept_in);
  display.Report(kept_in);  // nothing since
  return shown;
}

TEST(SearchDisplay, ALineEveryFewSecondsWhereThereIsNoTerminal) {
  EXPECT_EQ(Shown(false, 16, 0.75, "/home/u/.cache/te/x.txt"),
            "searching algorithms: 7 products, 5 s (at most 12 s in all)\n"
            "searching algorithms: 14 products, 10 s (at most 12 s in all)\n"
            "algorithms      16 found in 12.0 s, kept in /home/u/.cache/te/x.txt\n");
  EXPECT_EQ(Shown(false, 2, 0.75, ""), "algorithms      2 found in 1.5 s\n");
}

TEST(SearchDisplay, OneLineThatIsDrawnOverOnATerminal) {
  EXPECT_EQ(Shown(true, 2, 0.75, ""),
            "\rsearching algorithms: 1 products, 1 s (at most 12 s in all)\x1b[K"
            "\rsearching algorithms: 2 products, 1 s (at most 12 s in all)\x1b[K"
            "\rsearching algorithms: 2 products, 2 s (at most 12 s in all)\x1b[K"
            "\r\x1b[Kalgorithms      2 found in 1.5 s\n");
}

TEST(SearchDisplay, NothingOfSearchesThatNobodyWaitsFor) {
  for (const bool terminal : {true, false}) {
    EXPECT_EQ(Shown(terminal, 0, 0, "x"), "");
    EXPECT_EQ(Shown(terminal, 16, 0.02, "x"), "");
  }
}

}  // namespace
}  // namespace te
