#!/bin/bash
# An output over an input: `te trace --output MODEL/model.safetensors` destroyed the weights that it had just read.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
cp -rL "$DEMO" "$W/m"
chmod -R u+w "$W/m"
samples 16 >"$W/d.jsonl"
echo '{"configs": {"c": {"training_recipe": {"recipe": "current"}}}, "matchers": [{"pattern": "*", "config": "c"}]}' >"$W/rules.json"
python3 - "$W/i.safetensors" <<'PY'
import json, struct, sys
ids = struct.pack("<8q", 1, 324, 294, 274, 261, 529, 605, 20)
header = json.dumps({"input_ids": {"dtype": "I64", "shape": [1, 8], "data_offsets": [0, 64]}}).encode()
header += b" " * (-len(header) % 8)
open(sys.argv[1], "wb").write(struct.pack("<Q", len(header)) + header + ids)
PY
mkdir "$W/elsewhere"
ln -s m/model.safetensors "$W/soft"
ln -s "$W/m/new.safetensors" "$W/dangling"
ln "$W/m/config.json" "$W/hard"
ln -s m "$W/alias"
ln -s "$W/i.safetensors" "$W/input-link"
sums() { (cd "$W" && find . -type f ! -name '.out' ! -name '.err' -exec sha256sum {} + | sort); }
BEFORE=$(sums)
untouched() { check "every file as it was" test "$(sums)" = "$BEFORE"; }

TRACE=(trace --model "$W/m" --input "$W/i.safetensors")
refused_trace() {
  run "${TRACE[@]}" "$@"
  expect_code 2
  expect_lines ERR 1
  untouched
}
for file in model.safetensors config.json tokenizer.model new.safetensors deep/../model.safetensors; do
  refused_trace --output "$W/m/$file"
  expect_line ERR '^te trace: error: --output: .*(is a file of|is in the folder of) --model'
done
for file in soft dangling hard alias/config.json alias/new.safetensors ./m//model.safetensors; do
  refused_trace --output "$W/$file"
  expect_line ERR '^te trace: error: --output: .*(is a file of|is in the folder of) --model'
done
for file in i.safetensors input-link; do
  refused_trace --output "$W/$file"
  expect_line ERR 'is the file of --input'
done
refused_trace --precision fp8 --recipe current --fp8-recipe-file "$W/rules.json" --output "$W/rules.json"
expect_line ERR 'is the file of --fp8-recipe-file'
# What cannot be a file is said before the work, too.
for path in "$W/elsewhere" "$W/none/t.safetensors" /dev/full /dev/null; do
  refused_trace --output "$path"
  expect_line ERR '^te trace: error: --output: '
done
check "/dev/null is what it was" test -c /dev/null
# A model in a subfolder: the folder above is the checkpoint's, too.
mkdir "$W/whole"
cp -r "$W/m" "$W/whole/sub"
BEFORE=$(sums)
run trace --model "$W/whole" --subfolder sub --input "$W/i.safetensors" --output "$W/whole/t.safetensors"
expect_code 2
untouched

# A good name works, a second time and through a link, and a failed write leaves what was there.
run "${TRACE[@]}" --output "$W/t.safetensors"
expect_code 0
run "${TRACE[@]}" --output "$W/t.safetensors"
expect_code 0
ln -s elsewhere/t.safetensors "$W/link"
run "${TRACE[@]}" --output "$W/link"
expect_code 0
check "the link stays a link" test -L "$W/link"
check "both are the same trace" cmp -s "$W/t.safetensors" "$W/elsewhere/t.safetensors"
check "nothing else is left" test "$(find "$W" -name '*.te-*' | wc -l)" -eq 0
BEFORE=$(sums)
COMMAND="te trace on a full disk"
ERR=$( (ulimit -f 1; "$TE" "${TRACE[@]}" --output "$W/t.safetensors") 2>&1 >/dev/null)
CODE=$?
expect_code 2
expect_lines ERR 1
expect_line ERR 'File too large'
untouched

# --log.
TRAIN=(finetune --model "$W/m" --data "$W/d.jsonl" --steps 1 --batch-size 2 --warmup-steps 0)
refused_finetune() {
  run "${TRAIN[@]}" "$@"
  expect_code 2
  expect_lines ERR 1
  untouched
}
ln -s d.jsonl "$W/data-link"
BEFORE=$(sums)
for file in d.jsonl data-link; do
  refused_finetune --output "$W/o" --log "$W/$file"
  expect_line ERR '^te finetune: error: --log: .* is the file of --data'
done
for file in m/config.json m/model.safetensors m/tokenizer.model m/model.safetensors.index.json alias/config.json soft hard; do
  refused_finetune --output "$W/o" --log "$W/$file"
  expect_line ERR '^te finetune: error: --log: '
  expect_no_file "$W/o"
done
refused_finetune --output "$W/o" --log "$W/rules.json" --precision fp8 --recipe current --fp8-recipe-file "$W/rules.json"
expect_line ERR 'is the file of --fp8-recipe-file'
for name in config.json model.safetensors tokenizer.model te_optimizer_state.safetensors generation_config.json te_tuned_choices.txt; do
  refused_finetune --output "$W/o" --log "$W/o/$name"
  expect_line ERR '^te finetune: error: --log: .* a name that checkpoints use'
  expect_no_file "$W/o"
done
refused_finetune --output "$W/o" --log "$W/o"
expect_line ERR 'is the directory of --output'

# --output: replacing it must not remove what is read.
cp -r "$W/m" "$W/old"
cp "$W/i.safetensors" "$W/old/model-ids.safetensors"
BEFORE=$(sums)
run finetune --model "$W/m" --data "$W/old/model-ids.safetensors" --steps 1 --batch-size 1 --warmup-steps 0 --output "$W/old"
expect_code 2
expect_line ERR '^te finetune: error: --output: replacing .*/old would remove .*/model-ids.safetensors, which --data reads'
untouched
mkdir "$W/linked"
for file in config.json tokenizer.model tokenizer_config.json model.safetensors; do ln -s "../old/$file" "$W/linked/$file"; done
BEFORE=$(sums)
run finetune --model "$W/linked" --data "$W/d.jsonl" --steps 1 --batch-size 2 --warmup-steps 0 --output "$W/old"
expect_code 2
expect_line ERR 'which --model reads'
untouched
# Other files of the directory stay: data in it is no obstacle.
cp "$W/d.jsonl" "$W/old/data.jsonl"
run finetune --model "$W/m" --data "$W/old/data.jsonl" --steps 1 --batch-size 2 --warmup-steps 0 --output "$W/old"
expect_code 0
check "the data is still there" cmp -s "$W/d.jsonl" "$W/old/data.jsonl"

# Standard output, appended to an input.
COMMAND="te finetune >> DATA"
ERR=$("$TE" "${TRAIN[@]}" --output "$W/o" 2>&1 >>"$W/d.jsonl")
CODE=$?
expect_code 2
expect_line ERR 'standard output: .* is the file of --data'
check "no line was added" test "$(wc -l <"$W/d.jsonl")" -eq 16
COMMAND="te finetune --log FILE > FILE"
# shellcheck disable=SC2094  # that is what is tried
ERR=$("$TE" "${TRAIN[@]}" --output "$W/o" --log "$W/both" 2>&1 >"$W/both")
CODE=$?
expect_code 2
expect_line ERR '^te finetune: error: --log: .* is where standard output goes'

# --output over --model works, also with the log of the run inside, which goes on.
run "${TRAIN[@]}" --output "$W/m" --save-optimizer-state --log "$W/m/log.jsonl"
expect_code 0
run "${TRAIN[@]}" --steps 2 --resume --output "$W/m" --log "$W/m/log.jsonl"
expect_code 0
check "2 lines in the log" test "$(grep -c '^{"step":.*}$' "$W/m/log.jsonl")" -eq 2

# --log inside a directory that is still to be made.
run "${TRAIN[@]}" --output "$W/new" --log "$W/new/logs/run.jsonl" --steps 3 --save-every 1
expect_code 0
check "3 lines in the log" test "$(grep -c '^{"step":.*}$' "$W/new/logs/run.jsonl")" -eq 3
expect_file "$W/new/model.safetensors"
# A run that fails before its first step leaves nothing; one that is killed leaves its log, and the next one starts over.
run "${TRAIN[@]}" --output "$W/fails" --log "$W/fails/run.jsonl" --freeze '*'
expect_code 2
expect_no_file "$W/fails"
mkdir "$W/again"
echo '{"step":1}' >"$W/again/run.jsonl"
run "${TRAIN[@]}" --output "$W/again" --log "$W/again/run.jsonl"
expect_code 0
expect_file "$W/again/model.safetensors"
mkdir "$W/mine"
echo mine >"$W/mine/notes"
run "${TRAIN[@]}" --output "$W/mine" --log "$W/mine/run.jsonl"
expect_code 2
expect_no_file "$W/mine/run.jsonl"
expect_line ERR 'no checkpoint: not replaced'
finish
