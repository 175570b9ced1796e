#!/bin/bash
# --model of a folder above the checkpoint, or of something that people take for one: the message names what is meant.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

refused() { run inspect --model "$1"; expect_code 2; expect_lines ERR 1; expect_line ERR "$2"; }

cache=$W/hub/models--acme--tiny
mkdir -p "$cache/snapshots/0123abcd"
cp -L "$DEMO"/* "$cache/snapshots/0123abcd"
refused "$cache" "no config\.json there.*$cache/snapshots/0123abcd"
refused "$cache/snapshots" "snapshots/0123abcd"
refused "$W/hub" "the Hugging Face hub's cache.*snapshots/0123abcd"
mkdir -p "$W/run/checkpoint-500" "$W/run/checkpoint-60"
cp -L "$DEMO"/* "$W/run/checkpoint-500"
cp -L "$DEMO"/* "$W/run/checkpoint-60"
refused "$W/run" "its latest checkpoint is $W/run/checkpoint-500, "
run inspect --model "$W/run/checkpoint-500"
expect_code 0

# The same from every command.
for command in finetune generate trace; do
  case $command in
    finetune) run finetune --model "$cache" --steps 0 --output "$W/o" ;;
    generate) run generate --model "$cache" --prompt a ;;
    trace) run trace --model "$cache" --input "$HERE/tiny.py" --output "$W/o" ;;
  esac
  expect_code 2
  expect_line ERR 'snapshots/0123abcd'
done

mkdir "$W/adapter" "$W/empty" "$W/gguf" "$W/meta" "$W/tokenizer" "$W/download"
echo '{"base_model_name_or_path": "acme/base", "peft_type": "LORA"}' >"$W/adapter/adapter_config.json"
refused "$W/adapter" 'a PEFT adapter.*its base is acme/base.*merge_and_unload'
refused "$W/empty" 'an empty folder'
printf 'GGUF\3\0\0\0' >"$W/gguf/tiny.Q4.gguf"
refused "$W/gguf" 'GGUF files \(tiny\.Q4\.gguf'
refused "$W/gguf/tiny.Q4.gguf" "a GGUF file \(llama\.cpp's format\)"
touch "$W/meta/consolidated.00.pth"
echo '{"dim": 64}' >"$W/meta/params.json"
refused "$W/meta" "Meta's own format.*convert_llama_weights_to_hf"
cp -L "$DEMO/tokenizer.model" "$W/tokenizer"
refused "$W/tokenizer" 'a tokenizer alone'
touch "$W/download/model.safetensors.incomplete"
refused "$W/download" 'a download was interrupted \(model\.safetensors\.incomplete\)'
refused "$W/run/checkpoint-500/model.safetensors" "a safetensors file.*give the directory that holds it: $W/run/checkpoint-500"
refused acme/tiny-llama 'no such directory.*hf download acme/tiny-llama --local-dir'
finish
