// What somebody may have meant who gave an argument that te does not have.
#pragma once

#include <string>

#include "CLI/CLI.hpp"

namespace te {

// " (did you mean --batch-size?)" or " (te counts updates: --steps N)" for an argument of `command`
// ("" before any command): what other programs call a thing that te has, or a flag or command that
// is spelled nearly so; "" when nothing is near.
std::string Suggestion(const CLI::App& app, const std::string& command,
                       const std::string& argument);

}  // namespace te
