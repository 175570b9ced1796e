#!/bin/bash
# A cache of algorithm choices in somebody's home must never be in the way: on a CPU nothing is chosen by timing, so no folder
# is made, and no HOME, one that cannot be written and a file in the cache's place change nothing.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

samples 16 >"$W/data.jsonl"
finetune() {
  run finetune --model "$DEMO" --data "$W/data.jsonl" --output "$W/out" --steps 2 --warmup-steps 1 --batch-size 2 --max-seq-length 32
  expect_code 0
  expect_no_line ERR 'choices|cache'
  expect_no_line OUT 'algorithms'
}

finetune
expect_no_file "$XDG_CACHE_HOME"
expect_no_file "$W/out/te_tuned_choices.txt"

unset XDG_CACHE_HOME
export HOME=$W/home
mkdir "$HOME"
finetune
expect_no_file "$HOME/.cache"

echo "not a folder" >"$HOME/.cache"
finetune
chmod a-w "$HOME"
finetune
unset HOME
finetune
export TE_CHOICES_CACHE=0
finetune
finish
