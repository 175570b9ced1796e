#!/bin/bash
# Output on a full disk: lost in silence, with exit code 0.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

for ids in "" --output-ids; do
  COMMAND="te generate $ids >/dev/full"
  # shellcheck disable=SC2086  # no flag at all where there is none
  ERR=$("$TE" generate --model "$DEMO" --prompt Once --max-new-tokens 5 $ids 2>&1 >/dev/full)
  CODE=$?
  OUT=
  expect_code 1
  expect_lines ERR 1
  expect_line ERR 'No space left on device'
done

# The log: the run goes on and saves, the loss is said once, and the code is 1.
samples 16 >"$W/d.jsonl"
TRAIN=(finetune --model "$DEMO" --data "$W/d.jsonl" --batch-size 2 --warmup-steps 0)
run "${TRAIN[@]}" --steps 3 --output "$W/o" --log /dev/full
expect_code 1
expect_lines ERR 1
expect_line ERR '^warning: --log: /dev/full: No space left on device: lines are lost; the run goes on'
expect_line OUT '^3 finetuning steps complete!'
expect_file "$W/o/model.safetensors"
# A pipe whose reader has had enough is a log that is not whole.
rm -rf "$W/o"
run "${TRAIN[@]}" --steps 30 --output "$W/o" --log >(head -n 1 >"$W/first")
expect_code 1
expect_line ERR '^warning: --log: .*Broken pipe'
expect_file "$W/o/model.safetensors"

# A limit of file sizes is no signal that ends the run, and what cannot be saved leaves what was there.
cp -rL "$DEMO" "$W/m"
chmod -R u+w "$W/m"
BEFORE=$(cd "$W/m" && find . -type f -exec sha256sum {} + | sort)
COMMAND="te finetune under ulimit -f"
ERR=$( (ulimit -f 100; "$TE" "${TRAIN[@]}" --model "$W/m" --steps 1 --output "$W/m") 2>&1 >"$W/.out")
CODE=$?
expect_code 2
expect_lines ERR 1
expect_line ERR '^te finetune: error: .*File too large'
check "the model as it was" test "$(cd "$W/m" && find . -type f -exec sha256sum {} + | sort)" = "$BEFORE"
check "nothing is left beside it" test "$(find "$W" -name '*.te-*' | wc -l)" -eq 0
finish
