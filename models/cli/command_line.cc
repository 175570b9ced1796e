#include "models/cli/command_line.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "models/cli/console.h"
#include "models/cli/exit_code.h"
#include "models/cli/finetune.h"
#include "models/cli/generate.h"
#include "models/cli/inspect.h"
#include "models/cli/suggestion.h"
#include "models/cli/trace.h"

namespace te {
namespace {

constexpr char kModelGroup[] = "Model";

// Flags that every command has.
void AddModelFlags(CLI::App* command, ModelFlags* flags) {
  command->add_option("--model", flags->directory, "Checkpoint directory in Hugging Face's layout")
      ->type_name("DIR")
      ->required()
      ->group(kModelGroup);
  command->add_option("--subfolder", flags->subfolder, "Folder of the checkpoint directory to use")
      ->type_name("NAME")
      ->group(kModelGroup);
  command
      ->add_option("--variant", flags->variant,
                   "Weight files of this variant: model.VARIANT.safetensors")
      ->type_name("NAME")
      ->group(kModelGroup);
}

void AddLoadFlags(CLI::App* command, ModelFlags* flags) {
  AddModelFlags(command, flags);
  command
      ->add_flag("--allow-missing", flags->allow_missing,
                 "Initialize tensors that no weight file has, and list them, instead of stopping")
      ->group(kModelGroup);
  command
      ->add_option("--device", flags->device,
                   "Where to compute: cpu, cuda, or cuda:N (the Nth visible card)")
      ->type_name("NAME")
      ->capture_default_str()
      ->group("Machine");
  command->add_option("--threads", flags->threads, "CPU threads; 0: all that this process may use")
      ->type_name("N")
      ->capture_default_str()
      ->group("Machine");
}

// Empty ones take the recipe's default.
void AddFp8Flags(CLI::App* command, Fp8Options* fp8) {
  const auto option = [&](const char* name, auto* value, const char* type, const char* help) {
    command->add_option(name, *value, help)->type_name(type)->group("FP8");
  };
  option("--recipe", &fp8->recipe, "NAME", "delayed, current, block, mxfp8 or nvfp4 [delayed]");
  option("--fp8-format", &fp8->format, "hybrid|e4m3",
         "hybrid: E5M2 for gradients [hybrid; block and mxfp8: e4m3]");
  option("--fp8-margin", &fp8->margin, "N", "delayed: scales are 2^N times smaller [0]");
  option("--fp8-amax-history-len", &fp8->amax_history_len, "N",
         "delayed: steps that a scale looks back on [1024]");
  option("--fp8-amax-compute-algo", &fp8->amax_compute_algo, "max|most_recent",
         "delayed: which of their amaxes counts [max]");
  option("--fp8-recipe-parameters", &fp8->recipe_parameters, "JSON",
         "The recipe's other parameters, by Transformer Engine's names:\n"
         "'{\"backward_override\": \"dequantized\"}' (docs/fp8.md)");
  option("--fp8-first-layers-bf16", &fp8->first_layers_bf16, "N",
         "Leave the first N layers in bf16 [0]");
  option("--fp8-last-layers-bf16", &fp8->last_layers_bf16, "N",
         "Leave the last N layers in bf16 [0]");
  option("--fp8-recipe-file", &fp8->recipe_file, "FILE",
         "JSON: recipes by module name, before all other rules");
  command->add_flag("--fp8-lm-head", fp8->lm_head, "Quantize lm_head, too [no]")->group("FP8");
}

void AddComputeFlags(CLI::App* command, std::string* precision, std::string* path,
                     Fp8Options* fp8) {
  command
      ->add_option("--precision", *precision,
                   "Storage and arithmetic: fp32, bf16, or fp8 (bf16 with GEMMs by --recipe)")
      ->type_name("P")
      ->capture_default_str()
      ->group("Precision");
  command->add_option("--path", *path, "te: fused layers; hf: Hugging Face's operations one by one")
      ->type_name("te|hf")
      ->capture_default_str()
      ->group("Precision");
  AddFp8Flags(command, fp8);
}

void AddFinetuneData(CLI::App* command, FinetuneFlags* flags) {
  const std::string group = "Data";
  command
      ->add_option("--data", flags->data,
                   "Training data: JSON lines (an object a line), plain text (a sample a line),\n"
                   "or token ids (safetensors: input_ids [N,S], labels, attention_mask); which of\n"
                   "them it is, its content says")
      ->type_name("FILE")
      ->group(group);
  command
      ->add_option("--data-format", flags->data_format,
                   "Read --data as this, whatever it looks like")
      ->type_name("text|jsonl|safetensors")
      ->group(group);
  command->add_option("--text-field", flags->text_field, "Field of a JSON line that holds the text")
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command
      ->add_option("--max-seq-length", flags->max_seq_length,
                   "Tokens of a sample; longer ones are cut")
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      ->add_option("--batch-size", flags->batch_size,
                   "Samples of a micro-batch, padded to a multiple of 16 tokens")
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      ->add_flag("--shuffle,!--no-shuffle", flags->shuffle,
                 "A new order every epoch, by --seed [no]")
      ->group(group);
  command
      ->add_option("--seed", flags->model.seed,
                   "Of shuffling, dropout, rounding and random weights")
      ->type_name("N")
      ->check([](const std::string& text) {
        // strtoull, which CLI11 reads numbers with, makes 2^64 - 1 of -1.
        return text.starts_with("-") ? text + "; expected 0 or more" : std::string();
      })
      ->capture_default_str()
      ->group(group);
}

void AddFinetuneTraining(CLI::App* command, FinetuneFlags* flags) {
  const std::string group = "Training";
  const auto number = [&](const char* name, auto* value, const char* help) {
    command->add_option(name, *value, help)->type_name("X")->capture_default_str()->group(group);
  };
  const auto count = [&](const char* name, int64_t* value, const char* help) {
    command->add_option(name, *value, help)->type_name("N")->capture_default_str()->group(group);
  };
  count("--steps", &flags->steps, "Optimizer updates in all; 0 only loads and saves");
  count("--untimed-steps", &flags->untimed_steps,
        "Of these, the first that stay out of the average time");
  count("--gradient-accumulation-steps", &flags->gradient_accumulation_steps,
        "Micro-batches an update");
  number("--learning-rate,--lr", &flags->learning_rate, "Learning rate at the end of the warm-up");
  command
      ->add_option("--lr-scheduler", flags->lr_scheduler,
                   "linear (to 0 at --steps), cosine (the same) or constant")
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  count("--warmup-steps", &flags->warmup_steps,
        "Updates over which the learning rate rises from 0");
  number("--max-grad-norm", &flags->max_grad_norm, "Clip the gradient's norm to this; 0: never");
  number("--weight-decay", &flags->weight_decay, "AdamW, on all parameters");
  number("--beta1", &flags->beta1, "AdamW");
  number("--beta2", &flags->beta2, "AdamW");
  number("--eps", &flags->eps, "AdamW");
  command
      ->add_option("--recompute", flags->recompute,
                   "full: keep of a decoder layer's activations its input alone, and run the\n"
                   "layer again before its backward pass: less memory, more time, the same\n"
                   "numbers")
      ->type_name("none|full")
      ->capture_default_str()
      ->group(group);
  command
      ->add_option("--recompute-num-layers", flags->recompute_num_layers,
                   "With --recompute full: the first N decoder layers alone [all]")
      ->type_name("N")
      ->group(group);
  command
      ->add_option("--freeze", flags->freeze,
                   "Do not train tensors of this name (te inspect lists them; * matches\n"
                   "anything); may be repeated")
      ->type_name("PATTERN")
      ->take_all()
      ->allow_extra_args(false)
      ->group(group);
}

void AddFinetunePrecision(CLI::App* command, FinetuneFlags* flags) {
  AddComputeFlags(command, &flags->precision, &flags->path, &flags->fp8);
  const std::string group = "Precision";
  command
      ->add_flag("--fp8-dpa", flags->fp8.dpa,
                 "delayed: attention's products in FP8, too: gains on long sequences;\n"
                 "head_dim 128 on a GPU (docs/fp8.md) [no]")
      ->group("FP8");
  command
      ->add_option("--fp8-calibration-steps", flags->fp8.calibration_steps,
                   "delayed: first steps in bf16, which only fill the history\n"
                   "[1; 0 when the checkpoint has a te_fp8_state.safetensors]")
      ->type_name("N")
      ->group("FP8");
  command
      ->add_flag("--fp8-weights-only", flags->fp8.weights_only,
                 "delayed and current: the layers' matrices exist in FP8 alone, without a bf16\n"
                 "copy; the optimizer updates them in place [no]")
      ->group("FP8");
  command
      ->add_option("--master-weights", flags->master_weights,
                   "With bf16 and fp8: none, or fp32 copies of the weights [none]")
      ->type_name("none|fp32")
      ->group(group);
  command
      ->add_option("--moments", flags->moments,
                   "AdamW's two moments: bf16 or fp32 [that of --precision]")
      ->type_name("P")
      ->group(group);
  command
      ->add_option("--rounding", flags->rounding,
                   "Of bf16 weights and moments: nearest loses updates smaller than 1/512\n"
                   "of a weight, stochastic keeps them on average [stochastic]. FP8 weights\n"
                   "of --fp8-weights-only: stochastic")
      ->type_name("nearest|stochastic")
      ->group(group);
}

void AddFinetuneOutput(CLI::App* command, FinetuneFlags* flags) {
  const std::string group = "Output";
  command
      ->add_option("--output", flags->output,
                   "Directory to write, replaced as a whole; may be that of --model")
      ->type_name("DIR")
      ->required()
      ->group(group);
  command
      ->add_flag("--save-optimizer-state", flags->save_optimizer_state,
                 "Also write what --resume needs (te_optimizer_state.safetensors); Ctrl-C then\n"
                 "saves, too")
      ->group(group);
  command
      ->add_option("--save-every", flags->save_every,
                   "Also write --output every N steps; 0: at the end alone")
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      ->add_option("--max-shard-size", flags->max_shard_size,
                   "Largest weight file, as in 5GB, 300MB, 1GiB")
      ->type_name("SIZE")
      ->capture_default_str()
      ->group(group);
  command
      ->add_option("--save-dtype", flags->save_dtype,
                   "fp32, bf16 or fp16 [as the checkpoint stores each tensor]")
      ->type_name("P")
      ->group(group);
  command
      ->add_flag("--allow-nonfinite", flags->allow_nonfinite,
                 "Save weights even if some are NaN or infinite, or too large for --save-dtype;\n"
                 "else that is an error, and --output stays as it was [no]")
      ->group(group);
  command
      ->add_option("--log", flags->log,
                   "A JSON line a step: loss, learning_rate, grad_norm, milliseconds, ...;\n"
                   "--resume appends")
      ->type_name("FILE")
      ->group(group);
}

void AddFinetune(CLI::App* app, FinetuneFlags* flags) {
  CLI::App* command =
      app->add_subcommand("finetune", "Train a checkpoint on your data and write it back");
  AddLoadFlags(command, &flags->model);
  command
      ->add_flag(
          "--allow-nondeterministic", flags->model.allow_nondeterministic,
          "Faster kernels whose bits differ from run to run: attention's backward pass on a\n"
          "GPU. Changes nothing on the cpu [no]")
      ->group("Machine");
  command
      ->add_flag(
          "--init-from-config", flags->model.random_weights,
          "Begin with random weights: of --model only config.json and the tokenizer are read")
      ->group(kModelGroup);
  command
      ->add_flag("--resume", flags->resume,
                 "Go on with the run that wrote --model with --save-optimizer-state: the same\n"
                 "bits as if it had never ended. --steps counts from its beginning")
      ->group(kModelGroup);
  AddFinetuneData(command, flags);
  AddFinetuneTraining(command, flags);
  AddFinetunePrecision(command, flags);
  AddFinetuneOutput(command, flags);
  command->footer(
      "Examples:\n"
      "  te finetune --model Llama-2-7b-hf --data guanaco.jsonl --output tuned\n"
      "  te finetune --model Llama-2-7b-hf --data notes.txt --output tuned --steps 500 "
      "--warmup-steps 50 \\\n"
      "      --learning-rate 2e-5 --shuffle --max-grad-norm 1 --log run.jsonl\n"
      "The defaults are those of Transformer Engine's Llama tutorial (15 steps), but for "
      "stochastic rounding. The result "
      "loads in\nHugging Face transformers. Ctrl-C ends the run after the current step and writes "
      "nothing,\nor with --save-optimizer-state a checkpoint that --resume goes on from.\n"
      "On a GPU, algorithms that the run finds are kept for later ones in $XDG_CACHE_HOME/te (else "
      "~/.cache/te);\nTE_CHOICES_CACHE=0 in the environment keeps none.");
}

void AddTrace(CLI::App* app, TraceFlags* flags) {
  CLI::App* command = app->add_subcommand(
      "trace", "Write what a checkpoint computes from a batch: logits, loss, gradients");
  AddLoadFlags(command, &flags->model);
  command
      ->add_option("--input", flags->input,
                   "Safetensors with input_ids [B,S], optionally labels (-100: not counted)\n"
                   "and attention_mask")
      ->type_name("FILE")
      ->required()
      ->group("Trace");
  command
      ->add_option("--output", flags->output,
                   "Safetensors to write: logits, loss, hidden.i, grad.NAME, all float32")
      ->type_name("FILE")
      ->required()
      ->group("Trace");
  command
      ->add_flag("--gradients", flags->gradients,
                 "Also the gradient of the loss by every parameter")
      ->group("Trace");
  command
      ->add_flag("--hidden-states", flags->hidden_states,
                 "Also every layer's input and the final norm's output")
      ->group("Trace");
  AddComputeFlags(command, &flags->precision, &flags->path, &flags->fp8);
  command->footer(
      "Example:\n  te trace --model Llama-2-7b-hf --input batch.safetensors --output "
      "traced.safetensors --gradients");
}

void AddInspect(CLI::App* app, ModelFlags* flags) {
  CLI::App* command = app->add_subcommand(
      "inspect", "Show a checkpoint's modules, shapes, parameter counts, names and training state");
  AddModelFlags(command, flags);
  command->footer("Example:\n  te inspect --model Llama-2-7b-hf");
}

void AddGenerate(CLI::App* app, GenerateFlags* flags) {
  CLI::App* command =
      app->add_subcommand("generate",
                          "Continue a prompt, greedily: the likeliest token each time,\n"
                          "whatever generation_config.json says of sampling");
  AddLoadFlags(command, &flags->model);
  const std::string group = "Generation";
  command
      ->add_option("--prompt", flags->prompt,
                   "Text to continue (needs the checkpoint's tokenizer.model)")
      ->type_name("TEXT")
      ->group(group);
  command->add_option("--prompt-ids", flags->prompt_ids, "Token ids to continue, as in 1,2,3")
      ->type_name("IDS")
      ->group(group);
  command
      ->add_option("--max-new-tokens", flags->max_new_tokens,
                   "Tokens to add at most; lengths in generation_config.json do not count")
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      ->add_flag("--ignore-eos", flags->ignore_eos,
                 "Do not stop at the eos_token_id of generation_config.json, or\n"
                 "where there is none of config.json")
      ->group(group);
  command
      ->add_flag("--output-ids", flags->output_ids,
                 "Print the new ids alone, on one line, separated by commas")
      ->group(group);
  AddComputeFlags(command, &flags->precision, &flags->path, &flags->fp8);
  command->footer(
      "Example:\n  te generate --model tuned --prompt \"Once there was\" --max-new-tokens 40");
}

// Else CLI11 takes --shuffle=7 for --shuffle.
void RefuseValuesOfSwitches(CLI::App* app) {
  for (CLI::App* command : app->get_subcommands([](const CLI::App*) { return true; })) {
    for (CLI::Option* option : command->get_options()) {
      if (option->get_items_expected_max() == 0) option->disable_flag_override();
    }
  }
}

// A flag of one value that is given again, behind those of a script, say: the last one counts.
void LetTheLastOneCount(CLI::App* app) {
  for (CLI::App* command : app->get_subcommands([](const CLI::App*) { return true; })) {
    for (CLI::Option* option : command->get_options()) {
      if (option->get_items_expected_max() == 1)
        option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    }
  }
}

// The first of the arguments that gives a value to a flag that has none; empty: none does.
std::string SwitchWithValue(const CLI::App& command, const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    const size_t end = argument.find('=');
    if (end == std::string::npos || !argument.starts_with("--")) continue;
    const CLI::Option* option = command.get_option_no_throw(argument.substr(0, end));
    if (option != nullptr && option->get_items_expected_max() == 0) return argument;
  }
  return "";
}

int ReportParseError(const CLI::App& app, const CLI::ParseError& error,
                     const std::vector<std::string>& arguments) {
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {  // help, version
    std::ostringstream text;
    app.exit(error, text, text);
    PrintText(text.str());
    return kExitOk;
  }
  const std::vector<CLI::App*> used = app.get_subcommands();
  const CLI::App& command = used.empty() ? app : *used.front();
  const std::string program = used.empty() ? "te" : "te " + command.get_name();
  std::string message = error.what();
  const std::vector<std::string> unknown = app.remaining(/*recurse=*/true);
  // What nobody knows comes first, whatever else is wrong: a mistyped flag is often why another
  // one is missing.
  if (!unknown.empty()) {
    // Of a flag and its value, CLI11 may give the value first.
    const auto flag = std::find_if(unknown.begin(), unknown.end(),
                                   [](const std::string& text) { return text.starts_with("-"); });
    const std::string& culprit = flag != unknown.end() ? *flag : unknown.front();
    message = (used.empty() && flag == unknown.end() ? "unknown command: " : "unknown argument: ") +
              culprit + Suggestion(command, used.empty() ? "" : command.get_name(), culprit);
  } else if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr &&
             !SwitchWithValue(command, arguments).empty()) {
    const std::string argument = SwitchWithValue(command, arguments);
    message = argument.substr(0, argument.find('=')) + " takes no value; given " + argument;
  } else if (used.empty()) {
    message = "a command is required: finetune, trace, inspect or generate";
  }
  PrintError(program, message + "; see `" + program + " --help`");
  return kExitUsage;
}

int Finish(const std::string& program, const Status& status) {
  if (!status.ok()) PrintError(program, status.message());
  return ExitCodeOf(status);
}

int RunCommand(int argc, char** argv, std::string* program) {
  CLI::App app("te: load a Hugging Face Llama checkpoint, fine-tune it, write it back", "te");
  app.set_version_flag("--version", std::string("te ") + kTeVersion, "Print the version");
  app.get_formatter()->column_width(34);
  app.require_subcommand(1);
  app.footer(
      "`te COMMAND --help` lists a command's flags. Exit codes: 0 done, 2 a flag or file is wrong, "
      "1 it failed,\nor a part of its output could not be written (a reader that leaves a pipe, as "
      "in `te ... | head`, is no failure).");

  FinetuneFlags finetune;
  TraceFlags trace;
  ModelFlags inspect;
  GenerateFlags generate;
  AddFinetune(&app, &finetune);
  AddTrace(&app, &trace);
  AddInspect(&app, &inspect);
  AddGenerate(&app, &generate);
  RefuseValuesOfSwitches(&app);
  LetTheLastOneCount(&app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return ReportParseError(app, error, std::vector<std::string>(argv + 1, argv + argc));
  }

  *program = "te " + app.get_subcommands().front()->get_name();
  if (app.got_subcommand("finetune")) {
    StatusOr<ExitCode> code = Finetune(finetune);
    return code.ok() ? *code : Finish(*program, code.status());
  }
  if (app.got_subcommand("trace")) return Finish(*program, Trace(trace));
  if (app.got_subcommand("inspect")) return Finish(*program, Inspect(inspect));
  return Finish(*program, Generate(generate));
}

}  // namespace

int RunCommandLine(int argc, char** argv) {
  std::string program = "te";
  const int code = RunCommand(argc, argv, &program);
  // What te generate prints is a text, and nothing else belongs into it.
  return EndOutput(program, code, /*report=*/program != "te generate");
}

}  // namespace te
