// Choices of algorithms that ship with te (README.md here: for which models, shapes and cards).
#pragma once

#include <span>
#include <string_view>

namespace te {

// Texts of Device::PinChoices, one a file of this folder.
std::span<const std::string_view> ShippedChoices();

}  // namespace te
