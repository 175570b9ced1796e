#!/bin/bash
# Makes models/demo/checkpoint anew: the text, the tokenizer, and weights trained by te from random ones (about a minute).
#
# usage: TE_BIN=path/to/te models/demo/make_checkpoint.sh        needs python3 and spm_train (Debian: sentencepiece)
set -euo pipefail

here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
te=${TE_BIN:?set TE_BIN to the te program}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 "$here/make_corpus.py" "$work"
cp "$work/questions.jsonl" "$here/questions.jsonl"

# As Llama 2's tokenizer was made: BPE, bytes for what has no piece, digits one by one, no normalization. It sees the questions,
# too, so that the fine-tuning needs no new pieces; the model does not.
{ cat "$work/stories.txt"; python3 -c 'import json, sys
for line in open(sys.argv[1]): print(json.loads(line)["text"])' "$work/questions.jsonl"; } > "$work/tokenizer.txt"
spm_train --input="$work/tokenizer.txt" --model_prefix="$work/tokenizer" --model_type=bpe --vocab_size=640 \
  --byte_fallback=true --character_coverage=1.0 --normalization_rule_name=identity --remove_extra_whitespaces=false \
  --split_digits=true --minloglevel=1
cp "$work/tokenizer.model" "$here/checkpoint/"

"$te" finetune --init-from-config --model "$here/checkpoint" --data "$work/stories.txt" --output "$work/trained" \
  --precision bf16 --master-weights fp32 --moments fp32 --rounding nearest --steps 500 --warmup-steps 40 \
  --lr-scheduler cosine --learning-rate 4e-3 --batch-size 8 --max-seq-length 128 --shuffle --seed 1 --max-grad-norm 1 \
  --weight-decay 0.1 --beta2 0.95 --log "$work/log.jsonl"
cp "$work/trained/model.safetensors" "$here/checkpoint/"
tail -n 1 "$work/log.jsonl"
