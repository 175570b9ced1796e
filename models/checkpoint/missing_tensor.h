// Why a tensor is not in a checkpoint: what the files have instead, and where their names come
// from.
#pragma once

#include <span>
#include <string>

#include "models/checkpoint/checkpoint_reader.h"

namespace te {

// The part of a message after "tensor NAME is in none of the files": a prefix that the stored names
// have and the wanted ones have not; the program that names tensors like these; the names nearest
// to `name`; a file beside the others that the index does not name. Empty, or begins with "; ".
// `wanted` are all names that the model has; `name` is one of them.
std::string WhyMissing(const CheckpointReader& reader, const std::string& name,
                       std::span<const std::string> wanted);

}  // namespace te
