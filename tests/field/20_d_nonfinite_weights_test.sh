#!/bin/bash
# Weights that are no numbers any more: a save refuses them, names them, and leaves what was there.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

samples 16 >"$W/data.jsonl"
tiny "$W/model" --demo-tokenizer "$DEMO"
common=(--data "$W/data.jsonl" --batch-size 2 --max-seq-length 32 --warmup-steps 0 --lr-scheduler constant --precision fp32)
sum_of() { cat "$1"/* | sha256sum; }
# Whether two safetensors files hold the same tensors, bit for bit.
# shellcheck disable=SC2317  # check runs it
same_tensors() {
  python3 - "$1" "$2" <<'EOF'
import json, struct, sys
def tensors(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        header, data = json.loads(f.read(n)), f.read()
    header.pop("__metadata__", None)
    return {k: (v["dtype"], v["shape"], data[slice(*v["data_offsets"])]) for k, v in header.items()}
sys.exit(0 if tensors(sys.argv[1]) == tensors(sys.argv[2]) else 1)
EOF
}

# finetune MODEL OUTPUT FLAGS...
finetune() {
  local model=$1 output=$2
  shift 2
  run finetune --model "$W/$model" --output "$W/$output" "${common[@]}" "$@"
}

# What a good run leaves is there after each refusal.
finetune model out --steps 1
expect_code 0
good=$(sum_of "$W/out")
stays() { check "the old files stay" test "$good" = "$(sum_of "$W/out")"; }

# The last step makes numbers that float16 does not have.
finetune model out --steps 1 --lr 1e6 --save-dtype fp16
expect_code 1
expect_lines ERR 1
expect_line ERR '^te finetune: error: --output: [0-9]+ of [0-9]+ tensors would be saved with values that are NaN or infinite: '
expect_line ERR "model.embed_tokens.weight [0-9]+ of 40960 \(all beyond float16's largest, 65504\)"
expect_line ERR 'nothing was replaced; .*--save-dtype fp32 or bf16.*; --allow-nonfinite '
expect_no_line ERR 'learning rate'
stays
# float32 has them; and who wants them in float16 gets them.
finetune model fp32 --steps 1 --lr 1e6
expect_code 0
finetune model fp16 --steps 1 --lr 1e6 --save-dtype fp16 --allow-nonfinite
expect_code 0
check "float16 infinities were saved" python3 - "$W/fp16/model.safetensors" <<'EOF'
import json, struct, sys
with open(sys.argv[1], "rb") as f:
    n = struct.unpack("<Q", f.read(8))[0]
    header = json.loads(f.read(n))
    data = f.read()
begin, end = header["model.embed_tokens.weight"]["data_offsets"]
words = struct.unpack(f"<{(end - begin) // 2}H", data[begin:end])
sys.exit(0 if any(w & 0x7fff == 0x7c00 for w in words) else 1)
EOF

# An absurd rate: the update itself is beyond float32. The moments are as finite as ever.
finetune model out --steps 1 --lr 2e38 --weight-decay 1000
expect_code 1
expect_line ERR 'NaN or infinite: .*; train with a lower learning rate or gradient clipping \(--max-grad-norm 1\)'
stays

# A periodic save that is refused ends the run; the last good checkpoint is kept, and said.
finetune model every --steps 8 --save-every 1 --lr 2e4 --save-dtype fp16 --save-optimizer-state
expect_code 1
expect_lines ERR 1
expect_line ERR "beyond float16's largest"
expect_line ERR "; $W/every has step [1-7]$"
step=$(sed -n 's/.*has step \([0-9]*\)$/\1/p' <<<"$ERR")
expect_line OUT "^saved +$W/every, step $step$"
expect_no_line OUT "step $((step + 1))$"
run inspect --model "$W/every"
expect_code 0
expect_line OUT "$step steps|step $step"

# In the source already: untrained values go back as they are, or not at all.
python3 - "$W/model" "$W/nan" <<'EOF'
import json, shutil, struct, sys
shutil.copytree(sys.argv[1], sys.argv[2])
path = sys.argv[2] + "/model.safetensors"
raw = bytearray(open(path, "rb").read())
n = struct.unpack("<Q", raw[:8])[0]
at = 8 + n + json.loads(raw[8:8 + n])["model.norm.weight"]["data_offsets"][0]
raw[at:at + 8] = struct.pack("<If", 0x7fc01234, float("-inf"))
open(path, "wb").write(raw)
EOF
for dtype in "" "--save-dtype bf16"; do
  # shellcheck disable=SC2086  # two words, or none
  run finetune --model "$W/nan" --output "$W/out" --steps 0 $dtype
  expect_code 1
  expect_line ERR "1 of [0-9]+ tensors .* model.norm.weight 2 of 64 \(they were read so\).* look at the checkpoint in $W/nan"
  stays
done
run finetune --model "$W/nan" --output "$W/same" --steps 0 --allow-nonfinite
expect_code 0
check "the same bits" same_tensors "$W/nan/model.safetensors" "$W/same/model.safetensors"

# A number that the file holds and the run's dtype does not: its bytes are taken over.
python3 - "$W/nan/model.safetensors" <<'EOF'
import json, struct, sys
raw = bytearray(open(sys.argv[1], "rb").read())
n = struct.unpack("<Q", raw[:8])[0]
at = 8 + n + json.loads(raw[8:8 + n])["model.norm.weight"]["data_offsets"][0]
raw[at:at + 8] = struct.pack("<ff", 3.4028234e38, 1.0)
open(sys.argv[1], "wb").write(raw)
EOF
run finetune --model "$W/nan" --output "$W/large" --steps 0
expect_code 0
check "the same bits" same_tensors "$W/nan/model.safetensors" "$W/large/model.safetensors"
run finetune --model "$W/nan" --output "$W/large" --steps 0 --save-dtype bf16
expect_code 1
expect_line ERR "model.norm.weight 1 of 64 \(all beyond bfloat16's largest, 3.39e38\)"
finish
