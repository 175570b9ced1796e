#!/bin/bash
# Inputs that can be read only once: `--data <(zcat x.gz)` was opened twice, and half of it was lost in silence.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

lines() {
  local i
  for ((i = 1; i <= $1; ++i)); do echo "line $i of the story about a fox"; done
}
lines 1000 >"$W/lines.txt"
samples 1000 >"$W/lines.jsonl"
gzip -k "$W/lines.jsonl"
TRAIN=(finetune --model "$DEMO" --steps 1 --batch-size 2 --warmup-steps 0 --output "$W/o")

# Every sample, whatever the pipe: a shell's, a named one, standard input (a file or a pipe), slow or fast.
run "${TRAIN[@]}" --data <(cat "$W/lines.txt")
expect_code 0
expect_line OUT '^data .*plain text.* 1000 samples'
run "${TRAIN[@]}" --data <(zcat "$W/lines.jsonl.gz")
expect_code 0
expect_line OUT '^data .*JSON lines.* 1000 samples'
run "${TRAIN[@]}" --data <(head -c 40000 "$W/lines.jsonl"; sleep 1; tail -c +40001 "$W/lines.jsonl")
expect_code 0
expect_line OUT '^data .*JSON lines.* 1000 samples'
mkfifo "$W/fifo"
cat "$W/lines.jsonl" >"$W/fifo" &
run "${TRAIN[@]}" --data "$W/fifo"
expect_code 0
expect_line OUT '^data .*JSON lines.* 1000 samples'
for source in file pipe; do
  COMMAND="te finetune --data /dev/stdin of a $source"
  if [[ $source == file ]]; then
    OUT=$("$TE" "${TRAIN[@]}" --data /dev/stdin 2>"$W/err" <"$W/lines.jsonl")
    CODE=$?
  else
    # shellcheck disable=SC2002  # the pipe is what is tried
    OUT=$(cat "$W/lines.jsonl" | "$TE" "${TRAIN[@]}" --data /dev/stdin 2>"$W/err")
    CODE=$?
  fi
  ERR=$(<"$W/err")
  expect_code 0
  expect_line OUT '^data .*JSON lines.* 1000 samples'
done

# What is trained is what the file gives, to the last bit of the loss.
run "${TRAIN[@]}" --data "$W/lines.jsonl" --steps 3 --log "$W/file.log"
run "${TRAIN[@]}" --data <(cat "$W/lines.jsonl") --steps 3 --log "$W/pipe.log"
expect_code 0
losses() { grep -o '"loss":[^,]*' "$1"; }
check "the same losses from a file and a pipe" test "$(losses "$W/file.log")" = "$(losses "$W/pipe.log")"

# A run goes on from a pipe, too, when that gives the same.
run "${TRAIN[@]}" --data <(cat "$W/lines.jsonl") --steps 2 --save-optimizer-state
expect_code 0
run finetune --model "$W/o" --resume --batch-size 2 --warmup-steps 0 --steps 3 --output "$W/o2" --data <(cat "$W/lines.jsonl")
expect_code 0
run finetune --model "$W/o" --resume --batch-size 2 --warmup-steps 0 --steps 3 --output "$W/o2" --data <(head -n 999 "$W/lines.jsonl")
expect_code 2
expect_line ERR '^te finetune: error: --data is JSON lines, 999 samples.*expected JSON lines, 1000 samples'

# A rules file is read once, too.
echo '{"configs": {"c": {"training_recipe": {"recipe": "current"}}}, "matchers": [{"pattern": "*", "config": "c"}]}' >"$W/rules.json"
run "${TRAIN[@]}" --data "$W/lines.jsonl" --precision fp8 --recipe current --fp8-recipe-file <(cat "$W/rules.json")
expect_code 0

# What is read by position is refused by name, before anything is loaded.
python3 - "$W/ids.safetensors" <<'PY'
import json, struct, sys
ids = struct.pack("<8q", 1, 324, 294, 274, 261, 529, 605, 20)
header = json.dumps({"input_ids": {"dtype": "I64", "shape": [1, 8], "data_offsets": [0, 64]}}).encode()
header += b" " * (-len(header) % 8)
open(sys.argv[1], "wb").write(struct.pack("<Q", len(header)) + header + ids)
PY
run trace --model "$DEMO" --input <(cat "$W/ids.safetensors") --output "$W/t.safetensors"
expect_code 2
expect_lines ERR 1
expect_line ERR '/dev/fd/[0-9]+: is a pipe, .*needs a file'
expect_no_file "$W/t.safetensors"
mkfifo "$W/ids-pipe.safetensors"
cat "$W/ids.safetensors" >"$W/ids-pipe.safetensors" 2>"$W/cat.err" &
run "${TRAIN[@]}" --data "$W/ids-pipe.safetensors"
expect_code 2
expect_line ERR 'ids-pipe.safetensors: is a pipe, .*needs a file'
for file in model.safetensors config.json tokenizer.model; do
  rm -rf "$W/m"
  cp -rL "$DEMO" "$W/m"
  chmod -R u+w "$W/m"
  rm "$W/m/$file"
  mkfifo "$W/m/$file"
  run generate --model "$W/m" --prompt Once --max-new-tokens 2
  expect_code 2
  expect_line ERR "$file: (is a pipe, .*needs a file|not a regular file)"
done

# What is no data, by its kind; and nothing.
run "${TRAIN[@]}" --data "$W"
expect_code 2
expect_line ERR 'is a directory'
run "${TRAIN[@]}" --data /dev/zero
expect_code 2
expect_line ERR '/dev/zero: is a device'
run "${TRAIN[@]}" --data /dev/stdin # /dev/null
expect_code 2
expect_line ERR '/dev/stdin: is a device'
run "${TRAIN[@]}" --data -
expect_code 2
expect_line ERR '/dev/stdin'
run "${TRAIN[@]}" --data <(true)
expect_code 2
expect_lines ERR 1
expect_line ERR 'no samples: it is empty'
finish
