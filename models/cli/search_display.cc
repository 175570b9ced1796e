#include "models/cli/search_display.h"

#include "fmt/format.h"

namespace te {
namespace {

// What is over sooner needs no word.
constexpr double kQuietSeconds = 0.5;
constexpr double kSecondsBetweenLines = 5;

}  // namespace

void SearchDisplay::Watch(Context* context) {
  context->device().ConfigureSearches(
      context->exec(),
      {.observer = [this](const SearchProgress& progress) { OnSearch(progress); }});
}

void SearchDisplay::Stop(Context* context) {
  context->device().ConfigureSearches(context->exec(), {});
}

void SearchDisplay::OnSearch(const SearchProgress& progress) {
  totals_ = progress.totals;
  const double seconds = totals_.seconds - reported_.seconds;
  if (seconds < kQuietSeconds) return;
  const std::string line =
      fmt::format("searching algorithms: {} products, {:.0f} s (at most {:.0f} s in all)",
                  totals_.searches - reported_.searches + (progress.ended ? 0 : 1), seconds,
                  progress.limit_seconds);
  if (terminal_) {
    fmt::print(out_, "\r{}\x1b[K", line);
    open_ = true;
  } else if (totals_.seconds - shown_seconds_ >= kSecondsBetweenLines) {
    shown_seconds_ = totals_.seconds;
    fmt::print(out_, "{}\n", line);
  }
  std::fflush(out_);
}

void SearchDisplay::Report(const std::string& kept_in) {
  const double seconds = totals_.seconds - reported_.seconds;
  const int64_t searches = totals_.searches - reported_.searches;
  reported_ = totals_;
  if (open_) fmt::print(out_, "\r\x1b[K");
  open_ = false;
  if (seconds < kQuietSeconds) return;
  fmt::print(out_, "algorithms      {} found in {:.1f} s{}\n", searches, seconds,
             kept_in.empty() ? "" : ", kept in " + kept_in);
  std::fflush(out_);
}

}  // namespace te
