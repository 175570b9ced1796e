#!/bin/bash
# The main job on a small checkpoint: load it, fine-tune it on new text, write it back, load the result and use it.
#
# usage: TE_BIN=path/to/te models/demo/demo.sh OUTPUT_DIR
# The checkpoint (models/demo/checkpoint) is a Llama of 1 million parameters that te trained itself: make_checkpoint.sh.
set -euo pipefail

here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
te=${TE_BIN:?set TE_BIN to the te program}
if [ $# -ne 1 ]; then
  sed -n '4,5s/^# //p' "$here/demo.sh" >&2
  exit 2
fi
output=$1
checkpoint=$here/checkpoint
tuned=$output/tuned
prompts=("### Human: Where does the fox live?### Assistant:" "### Human: What does the bear eat?### Assistant:")

say() { printf '\n== %s\n' "$*"; }
show() {  # prompts continued by the checkpoint in $1
  for prompt in "${prompts[@]}"; do
    printf '> '
    "$te" generate --model "$1" --prompt "$prompt" --max-new-tokens 24
  done
}

say "1. The checkpoint: a small Llama that was trained on animal stories (te inspect)"
"$te" inspect --model "$checkpoint" | sed -n '1,4p;$p'
printf '> '
"$te" generate --model "$checkpoint" --prompt "Once there was" --max-new-tokens 60

say "2. Asked a question it tells stories: it has never seen one"
show "$checkpoint"

say "3. Fine-tuning on questions and answers (te finetune): watch the loss"
"$te" finetune --model "$checkpoint" --data "$here/questions.jsonl" --output "$tuned" --log "$output/log.jsonl" \
  --steps 100 --warmup-steps 5 --learning-rate 2e-3 --batch-size 16 --max-seq-length 64 --shuffle --max-grad-norm 1

say "4. What was written: a Hugging Face directory"
ls -l "$tuned"

say "5. Loaded back and asked again"
show "$tuned"
printf '\nThe result is in %s; the log of the training in %s.\n' "$tuned" "$output/log.jsonl"
