#include "models/cli/suggestion.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <numeric>
#include <string_view>
#include <vector>

#include "fmt/format.h"

namespace te {
namespace {

// What other programs call a thing, separated by spaces, and what te has for it: a flag, or words.
// Without `command`: in every command that has the flag.
struct Habit {
  std::string_view names;
  std::string_view answer;
  std::string_view command = "";
};

constexpr Habit kHabits[] = {
    {"epochs epoch num-epochs num-epoch n-epochs num-train-epochs max-epochs train-epochs",
     "te counts optimizer updates: --steps; an epoch has samples / (--batch-size x "
     "--gradient-accumulation-steps) of them",
     "finetune"},
    {"max-steps num-steps train-steps num-train-steps iters iterations max-iters num-iterations "
     "n-iters updates",
     "--steps"},
    {"warmup-ratio warmup-fraction", "te takes a number of updates: --warmup-steps", "finetune"},
    {"warmup num-warmup-steps warmup-iters lr-warmup-steps", "--warmup-steps"},
    {"lr-scheduler-type lr-schedule scheduler schedule lr-decay-style", "--lr-scheduler"},
    {"per-device-train-batch-size per-device-batch-size train-batch-size micro-batch-size "
     "global-batch-size mbs bs bsz batch batchsize",
     "--batch-size"},
    {"grad-accum grad-accum-steps grad-acc-steps gradient-accumulation accumulation-steps "
     "accumulate-grad-batches grad-accumulation-steps",
     "--gradient-accumulation-steps"},
    {"max-length max-len max-seq-len seq-len seq-length sequence-length block-size context-length "
     "ctx-size cutoff-len model-max-length max-sequence-length",
     "--max-seq-length"},
    {"max-length max-len max-tokens max-new-token new-tokens num-tokens n-predict predict n-tokens "
     "length max-gen-len max-gen-tokens tokens",
     "--max-new-tokens"},
    {"bf16 fp16 fp32 fp8 tf32 dtype torch-dtype mixed-precision half bfloat16 float16 amp",
     "--precision"},
    {"model-name-or-path model-name model-path model-dir model-id checkpoint checkpoint-dir "
     "base-model pretrained pretrained-model pretrained-model-name-or-path ckpt ckpt-dir "
     "from-pretrained m",
     "--model"},
    {"output-dir out out-dir save-dir save save-path save-to output-path dest destination "
     "output-file o",
     "--output"},
    {"train-file train-data dataset dataset-name dataset-path data-path data-file data-dir train "
     "training-data file text corpus input input-file d",
     "--data"},
    {"format data-type file-format dataset-format", "--data-format"},
    {"text-column text-key column dataset-text-field content-field", "--text-field"},
    {"input-ids input-file batch", "--input"},
    {"gpu gpus cuda device-id device-ids use-gpu use-cuda ngl n-gpu-layers cpu use-cpu no-cuda "
     "device-map",
     "--device"},
    {"num-threads n-threads num-proc num-workers workers nproc j t cores", "--threads"},
    {"adam-beta1 adam-beta-1", "--beta1"},
    {"adam-beta2 adam-beta-2", "--beta2"},
    {"adam-epsilon adam-eps epsilon", "--eps"},
    {"clip grad-clip gradient-clip clip-grad clip-grad-norm max-norm gradient-clip-val "
     "gradient-clipping clip-norm",
     "--max-grad-norm"},
    {"wd decay l2", "--weight-decay"},
    {"gradient-checkpointing activation-checkpointing checkpoint-activations", "--recompute full",
     "finetune"},
    {"random-seed manual-seed rng-seed s", "--seed"},
    {"seed", "te generate is greedy: there is nothing to draw", "generate"},
    {"temperature temp top-p top-k do-sample sample sampling num-beams beams repetition-penalty "
     "repeat-penalty min-p",
     "te generate is greedy: the likeliest token each time", "generate"},
    {"n", "--max-new-tokens", "generate"},
    {"p text input", "--prompt", "generate"},
    {"ids tokens token-ids", "--prompt-ids", "generate"},
    {"logging-dir log-file logfile log-path log-dir report-to", "--log"},
    {"save-steps save-interval save-freq checkpoint-every checkpoint-interval save-strategy",
     "--save-every"},
    {"resume-from-checkpoint resume-from continue continue-training", "--resume"},
    {"save-optimizer optimizer-state save-state", "--save-optimizer-state"},
    {"from-scratch random-init init scratch", "--init-from-config"},
    {"lora use-lora peft use-peft lora-r lora-rank lora-alpha qlora load-in-4bit load-in-8bit "
     "adapter",
     "te trains the weights themselves; --freeze leaves some of them as they are", "finetune"},
    {"eval-steps eval evaluation-strategy eval-strategy eval-file eval-data validation-file "
     "val-data "
     "valid-file do-eval",
     "te finetune does not evaluate", "finetune"},
    {"do-train", "te finetune trains unless --steps is 0", "finetune"},
    {"freeze-layers freeze-embeddings frozen", "--freeze"},
    {"overwrite overwrite-output-dir force yes", "--output is replaced as it is", "finetune"},
    {"version v", "`te --version` prints it"},
    {"offload cpu-offload deepspeed fsdp", "te has no such thing"},
};

// Of commands.
constexpr Habit kCommandHabits[] = {
    {"train tune fine-tune sft run-clm pretrain fit", "finetune"},
    {"infer inference chat run complete completion predict gen sample", "generate"},
    {"info show ls list describe summary print view", "inspect"},
    {"forward logits eval evaluate grad gradients", "trace"},
    {"convert export save copy quantize merge",
     "`te finetune --steps 0 --output DIR` loads and saves"},
    {"help h", "te --help"},
    {"version", "te --version"},
};

// Lower case, "-" for "_", without the dashes in front and what "=" gives.
std::string Normalized(std::string_view argument) {
  std::string name(argument.substr(0, argument.find('=')));
  name.erase(0, name.find_first_not_of('-'));
  for (char& c : name) {
    c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return name;
}

bool HasWord(std::string_view words, std::string_view word) {
  if (word.empty()) return false;
  for (size_t at = words.find(word); at != std::string_view::npos; at = words.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || words[at - 1] == ' ') && (end == words.size() || words[end] == ' '))
      return true;
  }
  return false;
}

// How many letters are wrong, missing, too many, or swapped with their neighbour.
int EditDistance(std::string_view a, std::string_view b) {
  std::vector<int> before, row(b.size() + 1), next(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    next[0] = static_cast<int>(i) + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      next[j + 1] = std::min({row[j] + (a[i] == b[j] ? 0 : 1), row[j + 1] + 1, next[j] + 1});
      if (i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j])
        next[j + 1] = std::min(next[j + 1], before[j - 1] + 1);
    }
    before = row;
    row = next;
  }
  return row.back();
}

// The candidate that `name` is nearly: at most one letter in four is wrong, or it is the beginning
// of that one alone.
std::string Nearest(const std::string& name, const std::vector<std::string>& candidates) {
  std::string best, continued;
  int distance = 2 + static_cast<int>(name.size() - 1) / 4;  // this is too far
  int continuations = 0;
  for (const std::string& candidate : candidates) {
    const int d = EditDistance(name, candidate);
    if (d < distance) {
      distance = d;
      best = candidate;
    }
    if (name.size() >= 3 && candidate.starts_with(name)) {
      ++continuations;
      continued = candidate;
    }
  }
  return best.empty() && continuations == 1 ? continued : best;
}

std::string DidYouMean(std::string_view what) { return fmt::format(" (did you mean {}?)", what); }

std::string SuggestCommand(const CLI::App& app, const std::string& argument) {
  const std::string name = Normalized(argument);
  if (name.empty()) return "";
  for (const Habit& habit : kCommandHabits) {
    if (HasWord(habit.names, name)) {
      return habit.answer.starts_with('`') ? fmt::format(" ({})", habit.answer)
                                           : DidYouMean(habit.answer);
    }
  }
  std::vector<std::string> commands;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    commands.push_back(sub->get_name());
  const std::string nearest = Nearest(name, commands);
  return nearest.empty() ? "" : DidYouMean(nearest);
}

// A value without a flag.
std::string SuggestFlagFor(const CLI::App& app, const std::string& value) {
  const auto has = [&app](const char* flag) { return app.get_option_no_throw(flag) != nullptr; };
  const auto given = [&app](const char* flag) {
    const CLI::Option* option = app.get_option_no_throw(flag);
    return option != nullptr && option->count() > 0;
  };
  std::error_code error;
  const bool folder = std::filesystem::is_directory(value, error);
  const bool file = !folder && std::filesystem::exists(value, error);
  if (given("--prompt") && !folder && !file)
    return " (a --prompt of several words stands in quotes)";
  if (folder && !given("--model")) return fmt::format(" (did you mean --model {}?)", value);
  if (file && has("--data") && !given("--data"))
    return fmt::format(" (did you mean --data {}?)", value);
  if (file && has("--input") && !given("--input"))
    return fmt::format(" (did you mean --input {}?)", value);
  if (!given("--model") && value.find('/') != std::string::npos) {
    return " (no such file or directory; --model takes a checkpoint's directory on this machine)";
  }
  return " (every value follows its flag)";
}

}  // namespace

std::string Suggestion(const CLI::App& app, const std::string& command,
                       const std::string& argument) {
  const bool is_flag = argument.starts_with("-");
  if (!is_flag)
    return command.empty() ? SuggestCommand(app, argument) : SuggestFlagFor(app, argument);
  const std::string name = Normalized(argument);
  if (name.empty()) return "";
  const auto has = [&app](std::string_view flag) {
    return app.get_option_no_throw(std::string(flag.substr(0, flag.find(' ')))) != nullptr;
  };
  // --batch_size, -steps, --LR.
  if (has("--" + name)) return DidYouMean("--" + name);
  for (const Habit& habit : kHabits) {
    if (!HasWord(habit.names, name)) continue;
    if (!habit.command.empty() && habit.command != command) continue;
    if (habit.answer.starts_with("--") && habit.answer.find(" is ") == std::string_view::npos) {
      if (has(habit.answer)) return DidYouMean(habit.answer);
      continue;
    }
    return fmt::format(" ({})", habit.answer);
  }
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& known : option->get_lnames()) flags.push_back(known);
  }
  const std::string nearest = Nearest(name, flags);
  if (!nearest.empty()) return DidYouMean("--" + nearest);
  // A flag before its command.
  if (command.empty()) return " (flags follow a command: te finetune --model ...)";
  return "";
}

}  // namespace te
