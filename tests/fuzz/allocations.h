// How much memory a process holds at most between two moments, of all that malloc and operator new
// hand out.
#pragma once

#include <cstddef>

namespace te::fuzz {

void StartCountingAllocations();
// The most bytes held at once since the start, beyond those that were held then.
size_t StopCountingAllocations();

}  // namespace te::fuzz
