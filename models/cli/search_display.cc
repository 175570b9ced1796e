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
    write_("\r" + line + "\x1b[K");
    open_ = true;
  } else if (totals_.seconds - shown_seconds_ >= kSecondsBetweenLines) {
    shown_seconds_ = totals_.seconds;
    write_(line + "\n");
  }
}

void SearchDisplay::Report(const std::string& kept_in) {
  const double seconds = totals_.seconds - reported_.seconds;
  const int64_t searches = totals_.searches - reported_.searches;
  reported_ = totals_;
  if (open_) write_("\r\x1b[K");
  open_ = false;
  if (seconds < kQuietSeconds) return;
  write_(fmt::format("algorithms      {} found in {:.1f} s{}\n", searches, seconds,
                     kept_in.empty() ? "" : ", kept in " + kept_in));
}

}  // namespace te
