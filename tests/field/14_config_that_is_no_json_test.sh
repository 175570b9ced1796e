#!/bin/bash
# A clone without git-lfs, a page saved by wget: config.json or another JSON file is no JSON, and "byte 0: Invalid value." was all.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

POINTER='version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 581\n'
tiny "$W/m" --two-shards --demo-tokenizer "$DEMO"
cp -r "$W/m" "$W/good"
for file in config.json model.safetensors.index.json tokenizer_config.json generation_config.json; do
  for case in "$POINTER|a git-lfs pointer.*git lfs pull" '<!DOCTYPE html><html><body>401</body></html>|an HTML page' \
    '\x1f\x8b\x08\x00\x00|compressed with gzip' 'Entry not found|an error message of a server' '|an empty file' \
    '\xff\xfe{\x00}\x00\x20\x00|UTF-16'; do
    # shellcheck disable=SC2059
    printf "${case%%|*}" 0 >"$W/m/$file"
    run generate --model "$W/m" --prompt Once --max-new-tokens 2
    expect_code 2
    expect_lines ERR 1
    expect_line ERR "$file: .*${case#*|}"
  done
  rm "$W/m/$file"
  if [[ -e $W/good/$file ]]; then cp "$W/good/$file" "$W/m"; fi
done
run generate --model "$W/m" --prompt Once --max-new-tokens 2
expect_code 0
finish
