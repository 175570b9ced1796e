// What people take for a checkpoint directory, and what to say of it: a folder above or below the
// right one, an adapter, another program's format, half a download.
#pragma once

#include <string>
#include <vector>

#include "te_kernels/base/status.h"

namespace te {

// Hugging Face's names of weight files, in the order in which it looks for them.
inline constexpr const char* kWeightFiles[] = {"model.safetensors", "model.safetensors.index.json",
                                               "pytorch_model.bin", "pytorch_model.bin.index.json"};
// Hugging Face's _add_variant: the variant goes before the last suffix.
std::string WithVariant(const std::string& name, const std::string& variant);

// The directory with its subfolder, when it is one with a config.json that can be JSON. The error
// says what it is instead and what to do: which folder below has a config.json (of a hub cache the
// snapshot, of a Trainer's run the latest checkpoint), what a file holds, whose format it is.
StatusOr<std::string> FindModelDirectory(const std::string& directory,
                                         const std::string& subfolder);

// The error for a directory with a config.json and no weights under Hugging Face's names.
Status DescribeMissingWeights(const std::string& directory, const std::string& variant);

// Files there that hold weights of any format, by their names; the first eight.
std::vector<std::string> WeightLikeFiles(const std::string& directory);

// "; a download into this directory was interrupted (FILE)", or nothing.
std::string DescribeInterruptedDownload(const std::string& directory);

}  // namespace te
