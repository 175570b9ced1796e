// What a device's libraries have chosen by timing (Device::TunedChoices), as a file.
#pragma once

#include <string>

#include "te_core/context.h"

namespace te {

// The file's name beside a checkpoint: the same algorithms, hence the same bits, and nothing to
// time when it is loaded on such a card again.
inline constexpr const char* kTunedChoicesFile = "te_tuned_choices.txt";

enum class ChoicesFile {
  kAbsent,
  kPinned,     // what it names is not timed again
  kOfAnother,  // card, driver or library: nothing changed, choices are made anew
};

// kCorruptData names the file and what it is not; kIoError.
StatusOr<ChoicesFile> PinChoicesOf(const std::string& path, Context* context);

// Replaces `path` as a whole (ReplaceFile) by the choices that `context` has pinned or made so far.
// A device that chooses nothing by timing leaves no file.
Status WriteChoices(const std::string& path, Context* context,
                    WhichChoices which = WhichChoices::kOfRun);

}  // namespace te
