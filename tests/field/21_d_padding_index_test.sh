#!/bin/bash
# pad_token_id is the embedding's padding_idx, as in Hugging Face: its row gets no gradient through the embedding.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# batch FILE: token 2 in the text that counts.
python3 - "$W/batch.safetensors" <<'EOF'
import json, struct, sys
ids = [1, 2, 9, 2, 30, 2, 7, 11, 12, 2, 4, 5]
data = struct.pack(f"<{len(ids)}i", *ids)
spec = {"dtype": "I32", "shape": [2, 6]}
header = {"input_ids": spec | {"data_offsets": [0, len(data)]}, "labels": spec | {"data_offsets": [len(data), 2 * len(data)]}}
text = json.dumps(header).encode()
open(sys.argv[1], "wb").write(struct.pack("<Q", len(text)) + text + 2 * data)
EOF

# row FILE TENSOR ROW: "zero" or "numbers".
row() {
  python3 - "$@" <<'EOF'
import json, struct, sys
path, name, row = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(path, "rb") as f:
    n = struct.unpack("<Q", f.read(8))[0]
    entry = json.loads(f.read(n))[name]
    width = entry["shape"][1] * {"F32": 4, "BF16": 2}[entry["dtype"]]
    f.seek(8 + n + entry["data_offsets"][0] + row * width)
    print("numbers" if f.read(width).strip(b"\0\x80") else "zero")
EOF
}

# expect_row TRACE ROW WHAT
expect_row() { check "row $2 of $1: $3" test "$(row "$1" grad.model.embed_tokens.weight "$2")" = "$3"; }

for path in te hf; do
  for precision in fp32 bf16; do
    trace=(--input "$W/batch.safetensors" --output "$W/trace.safetensors" --gradients --path "$path" --precision "$precision")
    rm -rf "$W/model"
    tiny "$W/model" pad_token_id=2
    run trace --model "$W/model" "${trace[@]}"
    expect_code 0
    expect_row "$W/trace.safetensors" 2 zero
    expect_row "$W/trace.safetensors" 9 numbers
    tiny "$W/model" pad_token_id=null
    run trace --model "$W/model" "${trace[@]}"
    expect_row "$W/trace.safetensors" 2 numbers
    # nn.Embedding counts from the end: -638 of 640 is 2.
    tiny "$W/model" pad_token_id=-638
    run trace --model "$W/model" "${trace[@]}"
    expect_code 0
    expect_row "$W/trace.safetensors" 2 zero
    # Through a tied head it gets one.
    tiny "$W/model" pad_token_id=2 tie_word_embeddings=true
    run trace --model "$W/model" "${trace[@]}"
    expect_code 0
    expect_row "$W/trace.safetensors" 2 numbers
  done
done

# Hugging Face begins with zeros in that row when it begins at random.
tiny "$W/model" --demo-tokenizer "$DEMO" pad_token_id=2
run finetune --model "$W/model" --output "$W/random" --steps 0 --init-from-config
expect_code 0
check "row 2 begins at zero" test "$(row "$W/random/model.safetensors" model.embed_tokens.weight 2)" = zero
check "row 3 does not" test "$(row "$W/random/model.safetensors" model.embed_tokens.weight 3)" = numbers
run inspect --model "$W/model"
expect_line OUT 'Embedding\(640, 64, padding_idx=2, '

# What Hugging Face cannot load is refused by name.
for pad in 640 -641; do
  tiny "$W/model" pad_token_id=$pad
  run inspect --model "$W/model"
  expect_code 2
  expect_lines ERR 1
  expect_line ERR "config.json: pad_token_id is $pad; expected null or a token from 0 to 639"
done
finish
