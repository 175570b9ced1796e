// Warnings about texts and their lengths, which a run does not stop for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/data/dataset.h"
#include "models/llama/config.h"
#include "models/tokenizer/tokenizer.h"

namespace te {

// Where `tokens` are more than the model's positions; `what`: whose they are, "samples".
void WarnBeyondPositions(const std::string& what, int64_t tokens, const LlamaConfig& config);
// Names of special tokens that stood in a text; `where` with a line: "data.jsonl".
void WarnOfSpecialTexts(const std::vector<SpecialText>& found, const std::string& where);
// The same of a prompt.
void WarnOfSpecialTexts(const std::string& prompt, const Tokenizer& tokenizer);
// That no end of a text is trained, where the pad token is the eos token. `pad_labels`: how many
// labels that leaves out.
void WarnOfPadIsEos(const Tokenizer& tokenizer, int32_t pad_id, int64_t pad_labels);

}  // namespace te
