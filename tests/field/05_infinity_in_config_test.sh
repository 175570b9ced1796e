#!/bin/bash
# Infinity and NaN, which Python writes and reads: "byte 97: Invalid value." and no model.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

tiny "$W/m" 'time_step_limit=[0.0, Infinity]'
run inspect --model "$W/m"
expect_code 0
expect_line OUT '^weights: 21 tensors'

# Whatever Python's json module takes, in a field that nobody reads.
DEEP=$(printf '[%.0s' $(seq 300))$(printf ']%.0s' $(seq 300))
for value in NaN -Infinity 1e999 18446744073709551616 "1$(printf '0%.0s' $(seq 400))" '"\ud800"' "$DEEP" '{"\udc00": [NaN]}' -0; do
  python3 - "$W/m/config.json" "$value" <<'PY'
import json, sys
text = open(sys.argv[1]).read().rstrip().removesuffix("}")
text = text.split(', "own"')[0] + ', "own": ' + sys.argv[2] + "}"
json.loads(text)  # Python reads it
open(sys.argv[1], "w").write(text)
PY
  run inspect --model "$W/m"
  check "a model with ${value:0:40}" test "$CODE" -eq 0
  # And it is written back as it was.
  run finetune --model "$W/m" --steps 0 --save-dtype bf16 --output "$W/o"
  check "saved with ${value:0:40}" test "$CODE" -eq 0
  check "${value:0:40} is in the saved config" python3 - "$W/m/config.json" "$W/o/config.json" <<'PY'
import json, sys
a, b = (repr(json.load(open(p))["own"]) for p in sys.argv[1:])
sys.exit(a != b)
PY
done
# A byte order mark is skipped.
tiny "$W/m"
printf '\xef\xbb\xbf' | cat - "$W/m/config.json" >"$W/bom" && mv "$W/bom" "$W/m/config.json"
run inspect --model "$W/m"
expect_code 0
# In a field that is read, the number is refused by its name.
tiny "$W/m" 'rms_norm_eps=NaN'
run inspect --model "$W/m"
expect_code 2
expect_line ERR 'config.json: rms_norm_eps is NaN; expected a number of 0 or more'
tiny "$W/m" 'rope_theta=Infinity'
run inspect --model "$W/m"
expect_code 2
expect_line ERR 'rope_theta is Infinity; expected'

# Each message has file, line, column and word.
wrong() {
  printf '%b' "$1" >"$W/m/config.json"
  run inspect --model "$W/m"
  expect_code 2
  expect_lines ERR 1
  expect_line ERR "m/config.json: $2"
}
wrong '{\n  "hidden_size": nan\n}' 'line 2, column 18: expected a value, found nan'
wrong '{\n  "hidden_size": 64,\n}' "line 2, column 20: a comma before '}'"
wrong '{"a": True}' 'line 1, column 7: expected a value, found True'
wrong '{"a": 1\n "b": 2}' "line 2, column 2: expected ',' or '}', found a string"
wrong '{"a": 1' "line 1, column 8: .*the end of the text"
wrong '{"a": 1, "a": 2}' 'line 1, column 10: key "a" stands twice'
wrong '{"a": "\033[2J"}' 'line 1, column 8: a control character \(.u001b\)'
wrong '{"a": "\xff"}' '(line 1, column 8: byte 0xff, which is not UTF-8|expected JSON; this is binary data)'
wrong 'hidden_size: 64\n' 'line 1, column 1: expected a value, found hidden_size'

# The other readers.
tiny "$W/m" --two-shards --demo-tokenizer "$DEMO"
samples 16 >"$W/d.jsonl"
sed -i '3s/.*/{"text": nope}/' "$W/d.jsonl"
run finetune --model "$W/m" --data "$W/d.jsonl" --output "$W/o"
expect_code 2
expect_line ERR 'd.jsonl: line 3, column 10: expected a value, found nope'
samples 16 | sed 's/^{/{"score": NaN, "big": 1e999, /' >"$W/d.jsonl"
run finetune --model "$W/m" --data "$W/d.jsonl" --output "$W/o" --steps 1 --warmup-steps 0
expect_code 0
echo '{"text": "a\ud83d"}' >"$W/d.jsonl"
run finetune --model "$W/m" --data "$W/d.jsonl" --output "$W/o" --batch-size 1
expect_code 2
expect_line ERR 'd.jsonl:1: field "text" has half of a surrogate pair'
printf '{"add_bos_token": tru}' >"$W/m/tokenizer_config.json"
run generate --model "$W/m" --prompt Once
expect_code 2
expect_line ERR 'tokenizer_config.json: line 1, column 19: expected a value, found tru'
printf '{\n"weight_map": {"a" "b"}}' >"$W/m/model.safetensors.index.json"
rm "$W/m/model.safetensors"
run generate --model "$W/m" --prompt-ids 1 --output-ids
expect_code 2
expect_line ERR "index.json: line 2, column 20: expected ':' after key \"a\", found a string"
finish
