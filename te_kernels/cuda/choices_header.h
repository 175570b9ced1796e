// The first line of a text of choices: what they were made for.
#pragma once

#include <string>
#include <string_view>

#include "te_kernels/device/pin_as.h"

namespace te::cuda {

// "TITLE 2 | NVIDIA H200 | driver 13000 | cublasLt 130100". `card_and_driver`: CardAndDriver().
std::string ChoicesHeader(std::string_view title, std::string_view card_and_driver,
                          std::string_view library, size_t version);

// Whether choices under the line `theirs` hold where they would be written under `ours`, on a card
// of `num_sms` multiprocessors. All but kShipped: where the two are equal. kShipped: of any driver
// (an algorithm that the library's check takes is valid under each), of another patch of the
// library's version, and of any card with the H100's chip and as many multiprocessors as the H200
// has (the clocks and the memory differ, the order of the candidates hardly does).
bool ChoicesHold(std::string_view theirs, std::string_view ours, int num_sms, PinAs as);

}  // namespace te::cuda
