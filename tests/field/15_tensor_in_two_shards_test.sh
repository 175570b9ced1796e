#!/bin/bash
# A tensor in two shards, an entry of the index that nobody wants: read as Hugging Face reads them.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

same() { check "$1 and $2 are equal" cmp -s "$1" "$2"; }

tiny "$W/plain"
run finetune --model "$W/plain" --steps 0 --output "$W/expected"
expect_code 0
tiny "$W/m" --two-shards --dup model.embed_tokens.weight
run finetune --model "$W/m" --steps 0 --output "$W/o"
expect_code 0
same "$W/o/model.safetensors" "$W/expected/model.safetensors"
run inspect --model "$W/m"
expect_code 0
run generate --model "$W/m" --prompt-ids 1,5,9 --output-ids --max-new-tokens 5
expect_code 0

# The index: an entry that nobody wants, one that names the other shard, one that is missing.
sed -i 's/"weight_map": {/"weight_map": {"some.thing": "model-00001-of-00002.safetensors", /; s/"model.norm.weight": "model-0000[12]/"model.norm.weight": "model-00001/' \
  "$W/m/model.safetensors.index.json"
run finetune --model "$W/m" --steps 0 --output "$W/o"
expect_code 0
same "$W/o/model.safetensors" "$W/expected/model.safetensors"
sed -i 's/"model.norm.weight": "model-00001-of-00002.safetensors",* *//' "$W/m/model.safetensors.index.json"
run finetune --model "$W/m" --steps 0 --output "$W/o"
expect_code 0
same "$W/o/model.safetensors" "$W/expected/model.safetensors"

# Two values: which one is right nobody can tell.
python3 - "$W/m/model-00002-of-00002.safetensors" <<'PY'
import json, struct, sys
with open(sys.argv[1], "r+b") as f:
    size = struct.unpack("<Q", f.read(8))[0]
    begin = json.loads(f.read(size))["model.embed_tokens.weight"]["data_offsets"][0]
    f.seek(8 + size + begin)
    f.write(struct.pack("<f", 5))
PY
run finetune --model "$W/m" --steps 0 --output "$W/o2"
expect_code 2
expect_lines ERR 1
expect_line ERR 'model\.embed_tokens\.weight is in two files with different values: .*00001-of-00002.* and .*00002-of-00002'
expect_no_file "$W/o2"
run inspect --model "$W/m"
expect_code 2
expect_line ERR 'in two files with different values'
finish
