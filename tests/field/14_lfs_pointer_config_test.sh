#!/bin/bash
# A file that is something else than its name says: git-lfs's pointer, a saved web page, a compressed file, half a download.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

pointer() { printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 581\n' 0; }
page() { printf '<!DOCTYPE html><html><body>401</body></html>'; }
refused() { run inspect --model "$W/m"; expect_code 2; expect_line ERR "$1"; }

tiny "$W/m" --two-shards --demo-tokenizer "$DEMO"
cp -r "$W/m" "$W/whole"
restore() { rm -r "$W/m"; cp -r "$W/whole" "$W/m"; }
run inspect --model "$W/m"
expect_code 0

for name in config.json model.safetensors.index.json model-00001-of-00002.safetensors tokenizer.model; do
  pointer >"$W/m/$name"
  refused "$name: .*a git-lfs pointer.*git lfs pull"
  page >"$W/m/$name"
  refused "$name: .*an HTML page"
  gzip -c "$W/whole/$name" >"$W/m/$name"
  refused "$name: .*compressed with gzip.*gunzip"
  truncate -s 0 "$W/m/$name"
  truncate -s 300 "$W/m/$name"
  refused "$name: .*nothing but zero bytes"
  restore
done
tar -C "$W/whole" -cf "$W/m/model-00002-of-00002.safetensors" config.json
refused 'model-00002-of-00002\.safetensors: a tar archive.*tar xf'
restore
echo '{"error":"Repository not found"}' >"$W/m/config.json"
refused 'config\.json: an error message of a server'
printf 'Entry not found' >"$W/m/model.safetensors.index.json"
cp "$W/whole/config.json" "$W/m/config.json"
refused 'model\.safetensors\.index\.json: .*an error message of a server'
restore
head -c 20000 "$W/whole/model-00001-of-00002.safetensors" >"$W/m/model-00001-of-00002.safetensors"
refused 'model-00001-of-00002\.safetensors: .*truncated\?'

# A single file.
tiny "$W/s"
for name in model.safetensors pytorch_model.bin; do
  rm "$W"/s/*model*
  pointer >"$W/s/$name"
  run inspect --model "$W/s"
  expect_code 2
  expect_line ERR "$name: .*git lfs pull"
done
finish
