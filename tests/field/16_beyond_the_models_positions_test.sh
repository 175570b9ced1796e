#!/bin/bash
# --max-seq-length or generation beyond max_position_embeddings: no word.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

tiny "$W/m" --demo-tokenizer "$DEMO"
echo "{\"text\": \"$(printf 'the fox lives %.0s' $(seq 200))\"}" >"$W/d.jsonl"
FINETUNE=(finetune --model "$W/m" --data "$W/d.jsonl" --batch-size 1 --warmup-steps 0 --output "$W/o")
run "${FINETUNE[@]}" --steps 3 --max-seq-length 1000
expect_code 0
expect_line ERR 'warning: samples have up to 1000 tokens, but the model has positions for 128 \(max_position_embeddings in config.json\)'
expect_lines ERR 1
run "${FINETUNE[@]}" --steps 1 --max-seq-length 129
expect_line ERR 'up to 129 tokens'
# Up to the model's length nothing is wrong; nor is --max-seq-length by itself.
run "${FINETUNE[@]}" --steps 1 --max-seq-length 128
expect_lines ERR 0
samples 1 >"$W/d.jsonl"
run "${FINETUNE[@]}" --steps 1 --max-seq-length 1000
expect_lines ERR 0

run generate --model "$W/m" --prompt-ids 1,5 --output-ids --max-new-tokens 127 --ignore-eos
expect_code 0
expect_line ERR 'warning: prompt and --max-new-tokens may make 129 tokens, but the model has positions for 128'
expect_lines ERR 1
run generate --model "$W/m" --prompt-ids 1,5 --output-ids --max-new-tokens 126 --ignore-eos
expect_code 0
expect_lines ERR 0
# Refused before anything of that size is asked for, and before the weights are read.
rm "$W/m/model.safetensors"
run generate --model "$W/m" --prompt-ids 1,5 --output-ids --max-new-tokens 1000000000
expect_code 2
expect_lines ERR 1
expect_line ERR '--max-new-tokens is 1000000000; expected 16777214 or less after a prompt of 2 tokens.*made for 128'
finish
