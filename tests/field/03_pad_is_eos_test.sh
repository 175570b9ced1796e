#!/bin/bash
# The pad token is the eos token: labels of eos are masked, and the tuned model never stops. Nothing said so.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

samples 4 >"$W/d.jsonl"
finetune() {
  run finetune --model "$W/m" --data "$W/d.jsonl" --batch-size 2 --steps 2 --warmup-steps 0 --lr 0 --precision fp32 --output "$W/o"
  expect_code 0
}
cp -r "$DEMO" "$W/m"
chmod -R u+w "$W/m"
finetune
expect_lines ERR 0
sed -i 's/"pad_token": "<unk>"/"pad_token": "<\/s>"/' "$W/m/tokenizer_config.json"
finetune
expect_line ERR 'warning: no end of a text is trained: the pad token is the eos token \(id 2\).*\(4 of them here\)'
expect_lines ERR 1
# No pad token at all: eos takes its place.
sed -i 's/"pad_token": "<\/s>",\?//' "$W/m/tokenizer_config.json"
sed -i 's/, *}/}/; s/"pad_token_id": [0-9]*/"pad_token_id": null/' "$W/m/tokenizer_config.json" "$W/m/config.json"
finetune
expect_line ERR 'the pad token is missing, and in its place stands the eos token'
# Without an eos behind each text there is none to train.
sed -i 's/"add_eos_token": true/"add_eos_token": false/' "$W/m/tokenizer_config.json"
finetune
expect_no_line ERR 'no end of a text'
finish
