// Algorithms that are known before a run searches for them: what the user's earlier runs have
// found, and what ships with te.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "te_core/context.h"

namespace te {

// Where choices of all of a user's runs are kept: the folder te/ of XDG_CACHE_HOME, or of .cache in
// HOME. TE_CHOICES_CACHE names another folder, or with 0 (or nothing) none. Empty: none; so are
// folders that are not absolute paths.
std::string ChoicesCacheFolder();
// The same of these values of the three variables; null: not set.
std::string ChoicesCacheFolder(const char* te_choices_cache, const char* xdg_cache_home,
                               const char* home);

// One context's. Nobody's run fails because of a cache: a folder that cannot be written is as good
// as none, a file that is no such text is left alone until it is replaced. Thread-compatible.
class KnownChoices {
 public:
  KnownChoices() = default;  // none, and none are kept
  // Empty: no cache. `shipped`: texts of choices; they must outlive this.
  KnownChoices(std::string folder, std::span<const std::string_view> shipped)
      : folder_(std::move(folder)), shipped_texts_(shipped) {}

  // Pins what the cache has for the context's card, driver and libraries, and then what ships for
  // them. Whatever has been pinned before stays. Fails where the device does.
  Status Pin(Context* context);
  bool cached() const { return cached_; }    // something of the cache was pinned
  bool shipped() const { return shipped_; }  // something that ships was
  // Why the cache was not read, if that is worth a word: one line. Else empty.
  const std::string& warning() const { return warning_; }
  // The cache's file for this context; empty: there is none.
  const std::string& path() const { return path_; }

  // Adds what the context's searches have found since the last call to the cache's file, which
  // other processes may be adding to at the same time. Returns whether the file holds it now:
  // false where there is no cache, or it cannot be written; where nothing was found it does not
  // look.
  bool Keep(Context* context);

 private:
  Status PinCache(Context* context);
  Status Write(const std::string& text);

  std::string folder_;
  std::span<const std::string_view> shipped_texts_;
  std::string path_;
  std::string warning_;
  bool cached_ = false;
  bool shipped_ = false;
  bool replace_ = false;  // what the file holds is not to be carried on
  int64_t kept_searches_ = 0;
  bool kept_ = false;
};

}  // namespace te
