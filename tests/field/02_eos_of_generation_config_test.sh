#!/bin/bash
# An eos list in generation_config.json alone: Hugging Face's generate stops there, te went on.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

cp -r "$DEMO" "$W/m"
chmod -R u+w "$W/m"
GENERATE=(generate --model "$W/m" --prompt Once --max-new-tokens 10 --output-ids --precision fp32)
ALL=294,274,261,408,560,510,308,368,605,368
# What transformers 5.24 prints: (contents of generation_config.json, config.json's eos, ids).
ids() {
  rm -f "$W/m/generation_config.json"
  [[ $1 == none ]] || printf '%s' "$1" >"$W/m/generation_config.json"
  sed -i -E "s/\"eos_token_id\": [0-9]+/\"eos_token_id\": $2/" "$W/m/config.json"
  run "${GENERATE[@]}"
  expect_code 0
  check "with $1 and eos $2 in config.json the ids $3" test "$OUT" = "$3"
}
ids none 2 "$ALL"
ids none 274 294,274
ids '{"bos_token_id": 1, "eos_token_id": [2, 274]}' 2 294,274
expect_lines ERR 0
ids '{"eos_token_id": 274}' 2 294,274
ids '{"eos_token_id": 2}' 274 "$ALL"
ids '{"eos_token_id": [-1, 274], "temperature": NaN, "do_sample": true, "top_p": 0.9}' 2 294,274
expect_lines ERR 0
# A file without an eos: nothing ends the text, and that is said.
ids '{"bos_token_id": 1}' 274 "$ALL"
expect_line ERR 'generation_config.json has no eos_token_id: .* \(config.json has eos_token_id 274\)'
ids '{"eos_token_id": null}' 274 "$ALL"
ids '{"eos_token_id": 99999}' 274 "$ALL"
# What Hugging Face would apply in greedy generation is said not to be applied.
ids '{"eos_token_id": 2, "repetition_penalty": 1.5, "min_length": 8}' 2 "$ALL"
expect_line ERR 'not applied: repetition_penalty 1.5, min_length 8'
expect_lines ERR 1

printf '{"eos_token_id": [2, 274]}' >"$W/m/generation_config.json"
run "${GENERATE[@]}" --ignore-eos
check "all ids with --ignore-eos" test "$OUT" = "$ALL"
for bad in '{"eos_token_id": "2"}' '{"eos_token_id": ' '[1]' ''; do
  printf '%s' "$bad" >"$W/m/generation_config.json"
  run "${GENERATE[@]}"
  expect_code 2
  expect_lines ERR 1
  expect_line ERR 'generation_config.json: .*--ignore-eos does without the file'
  run "${GENERATE[@]}" --ignore-eos
  expect_code 0
done
# Training does not read it and takes it along.
printf '{"eos_token_id": [2, 274], "own": 1}' >"$W/m/generation_config.json"
run finetune --model "$W/m" --steps 0 --output "$W/o"
expect_code 0
check "the saved file" cmp "$W/m/generation_config.json" "$W/o/generation_config.json"
finish
