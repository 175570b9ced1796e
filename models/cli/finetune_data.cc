#include "models/cli/finetune_data.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "models/cli/console.h"
#include "models/cli/data_warnings.h"

namespace te {
namespace {

// What padding is filled with. It is masked, so it never changes a result; it must be an id that
// the model has.
int32_t PadId(const LlamaConfig& config, const Tokenizer* tokenizer) {
  std::vector<std::optional<int64_t>> candidates;
  if (tokenizer != nullptr) candidates.push_back(tokenizer->special_tokens().pad);
  candidates.push_back(config.pad_token_id);
  if (tokenizer != nullptr) candidates.push_back(tokenizer->special_tokens().eos);
  for (int64_t eos : config.eos_token_ids) candidates.push_back(eos);
  for (const std::optional<int64_t>& id : candidates) {
    if (id && *id >= 0 && *id < config.vocab_size) return static_cast<int32_t>(*id);
  }
  return 0;
}

// Shows how far tokenizing is, once it takes long: a line that is drawn anew on a terminal, else a
// line from time to time.
class TokenizingProgress {
 public:
  void Show(int64_t done, int64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return;
    next_ = now + std::chrono::seconds(terminal_ ? 1 : 10);
    Print("{}tokenizing      {} of {} batches{}", terminal_ ? "\r" : "", done, total,
          terminal_ ? "\x1b[K" : "\n");
    open_ = terminal_;
  }
  void Finish() {
    if (open_) PrintText("\r\x1b[K");
    open_ = false;
  }

 private:
  bool terminal_ = isatty(STDOUT_FILENO) != 0;
  bool open_ = false;
  std::chrono::steady_clock::time_point next_ =
      std::chrono::steady_clock::now() + std::chrono::seconds(2);
};

}  // namespace

StatusOr<Batch> TrainingData::At(int64_t index) {
  std::vector<Sample> samples;
  for (int64_t sample : sampler->Batch(index)) {
    TE_ASSIGN_OR_RETURN(Sample next, dataset->At(sample));
    samples.push_back(std::move(next));
  }
  return Collate(samples, collate);
}

StatusOr<OpenedData> OpenData(const FinetuneFlags& flags) {
  TE_ASSIGN_OR_RETURN(DataInput input, DataInput::Open(flags.data));
  StatusOr<DataFormat> format =
      flags.data_format.empty() ? DetectDataFormat(&input) : ParseDataFormat(flags.data_format);
  if (!format.ok()) {
    return flags.data_format.empty() ? format.status()
                                     : format.status().WithContext("--data-format is");
  }
  // A pipe of what is read by position is refused before minutes of loading.
  if (*format == DataFormat::kSafetensors) TE_RETURN_IF_ERROR(input.CheckReadByPosition());
  return OpenedData{std::move(input), *format};
}

StatusOr<TrainingData> ReadTrainingData(const FinetuneFlags& flags, OpenedData input,
                                        const OpenedModel& opened, int64_t first_step) {
  const LlamaConfig& config = opened.llama.model->config();
  const DataFormat format = input.format;
  TrainingData data;
  if (format != DataFormat::kSafetensors) {
    TE_ASSIGN_OR_RETURN(data.tokenizer, LoadTokenizer(opened.llama.directory));
  }
  if (format != DataFormat::kJsonLines && flags.text_field != FinetuneFlags().text_field) {
    return InvalidArgument("--text-field has no effect: {} is {}", flags.data, Name(format));
  }
  data.collate.pad_id = PadId(config, data.tokenizer.get());
  TE_ASSIGN_OR_RETURN(data.dataset, OpenDataset(std::move(input.input), format,
                                                {.text_field = flags.text_field,
                                                 .max_sequence_length = flags.max_seq_length,
                                                 .vocab_size = config.vocab_size,
                                                 .tokenizer = data.tokenizer.get(),
                                                 .pad_id = data.collate.pad_id}));
  // Texts: Hugging Face's drop_last. Ids: used in order and repeated.
  StatusOr<BatchSampler> sampler =
      BatchSampler::Create({.samples = data.dataset->size(),
                            .batch_size = flags.batch_size,
                            .drop_last = format != DataFormat::kSafetensors,
                            .shuffle = flags.shuffle,
                            .seed = flags.model.seed});
  if (!sampler.ok()) return sampler.status().WithContext(flags.data);
  data.sampler = std::make_unique<BatchSampler>(std::move(sampler).value());

  const int64_t batches = (flags.steps - first_step) * flags.gradient_accumulation_steps;
  const int64_t epoch = (data.dataset->size() + flags.batch_size - 1) / flags.batch_size;
  const int64_t begin = first_step * flags.gradient_accumulation_steps;
  // In file order an epoch's batches are those of the next one.
  const int64_t seen = flags.shuffle ? batches : std::min(batches, epoch);
  TokenizingProgress progress;
  for (int64_t i = 0; i < seen; ++i) {
    TE_RETURN_IF_ERROR(data.dataset->Prepare(data.sampler->Batch(begin + i)));
    if (data.tokenizer != nullptr) progress.Show(i + 1, seen);
  }
  progress.Finish();
  data.format = format;
  data.input_bytes = data.dataset->input_bytes();
  return data;
}

void PrintData(const FinetuneFlags& flags, const TrainingData& data, const LlamaConfig& config) {
  Print("data            {}: {}, {} samples\n", flags.data, Name(data.format),
        data.dataset->size());
  if (data.tokenizer != nullptr) Print("tokenizer       {}\n", data.tokenizer->Describe());
  if (data.dataset->truncated() > 0) {
    Print("                {} samples cut to {} tokens (--max-seq-length)\n",
          data.dataset->truncated(), flags.max_seq_length);
  }
  WarnBeyondPositions("samples have up to", data.dataset->longest(), config);
  WarnOfSpecialTexts(data.dataset->special_texts(), flags.data);
  if (data.tokenizer != nullptr)
    WarnOfPadIsEos(*data.tokenizer, data.collate.pad_id, data.dataset->pad_labels());
}

}  // namespace te
