#!/bin/bash
# Llama 3, SmolLM, ...: tokenizer.json and no tokenizer.model. The message names both formats and what works today.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

cp -r "$DEMO" "$W/m"
chmod -R u+w "$W/m"
rm "$W/m/tokenizer.model"
samples 16 >"$W/d.jsonl"
refused() {
  run finetune --model "$W/m" --data "$W/d.jsonl" --output "$W/o"
  expect_code 2
  expect_lines ERR 1
  expect_line ERR "$1"
  run generate --model "$W/m" --prompt Once
  expect_code 2
  expect_line ERR "$1"
}
echo '{"version":"1.0","model":{"type":"BPE","vocab":{},"merges":[]}}' >"$W/m/tokenizer.json"
refused "its tokenizer is tokenizer.json, which is not read yet \(nor is tiktoken's format.*--data FILE.safetensors.*--prompt-ids"
rm "$W/m/tokenizer.json"
refused 'no tokenizer \(tokenizer.model\).*--data FILE.safetensors'
printf 'IQ== 0\nIg== 1\nIw== 2\n' >"$W/m/tokenizer.model"
refused 'a vocabulary of tiktoken \(Llama 3 and later\), which is not read yet; token ids work'
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n' >"$W/m/tokenizer.model"
refused 'tokenizer.model: expected a SentencePiece model; this is a git-lfs pointer'
# What the message says works.
run generate --model "$W/m" --prompt-ids 1,324 --max-new-tokens 3 --output-ids
expect_code 0
check "three ids" test "$OUT" = 294,274,261
finish
