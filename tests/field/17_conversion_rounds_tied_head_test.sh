#!/bin/bash
# --steps 0 only loads and saves: every value comes back bit for bit, whatever its name and dtype on disk.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# compare FROM TO [STORED=SAVED]...: every tensor of TO is one of FROM, under its name or the one that stands for it, with its
# dtype and bytes.
# shellcheck disable=SC2317  # called by name
compare() {
  python3 - "$@" <<'PY'
import glob, json, struct, sys
def read(folder):
    out = {}
    for path in glob.glob(folder + "/*.safetensors"):
        with open(path, "rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
            at = f.tell()
            for name, x in header.items():
                if name != "__metadata__":
                    f.seek(at + x["data_offsets"][0])
                    out[name] = (x["dtype"], x["shape"], f.read(x["data_offsets"][1] - x["data_offsets"][0]))
    return out
old, new = read(sys.argv[1]), read(sys.argv[2])
for pair in sys.argv[3:]:
    stored, saved = pair.split("=")
    old[saved] = old.pop(stored)
bad = [k for k in new if old.get(k) != new[k]]
print("%d tensors, %d of them other than before: %s" % (len(new), len(bad), bad[:3]))
sys.exit(bool(bad) or len(new) < 3)
PY
}
# PRECISION, then the pairs of compare.
converts() {
  local precision=$1
  shift
  rm -rf "$W/o"
  run finetune --model "$W/m" --steps 0 --output "$W/o" --precision "$precision"
  expect_code 0
  check "the same values as before" compare "$W/m" "$W/o" "$@"
  rm -rf "$W/m"
}
# Rewrites the weights of $W/m: recast NAME-PATTERN=DTYPE...
recast() {
  python3 - "$W/m/model.safetensors" "$@" <<'PY'
import fnmatch, json, struct, sys
path = sys.argv[1]
with open(path, "rb") as f:
    header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0])); data = f.read()
out, blob = {}, b""
for name, x in header.items():
    if name == "__metadata__": continue
    raw = data[x["data_offsets"][0]:x["data_offsets"][1]]; dtype = "F32"
    for rule in sys.argv[2:]:
        pattern, to = rule.split("=")
        if fnmatch.fnmatch(name, pattern): dtype = to
    numbers = struct.unpack("<%df" % (len(raw) // 4), raw)
    if dtype == "F16": raw = struct.pack("<%de" % len(numbers), *numbers)
    if dtype == "F64": raw = struct.pack("<%dd" % len(numbers), *[n + n * 2.0 ** -40 for n in numbers])
    if dtype == "BF16": raw = b"".join(raw[i + 2:i + 4] for i in range(0, len(raw), 4))
    out[name] = {"dtype": dtype, "shape": x["shape"], "data_offsets": [len(blob), len(blob) + len(raw)]}; blob += raw
text = json.dumps(out).encode()
with open(path, "wb") as f: f.write(struct.pack("<Q", len(text)) + text + blob)
PY
}

for precision in bf16 fp32; do
  tiny "$W/m" --head-only tie_word_embeddings=true
  converts $precision lm_head.weight=model.embed_tokens.weight
  tiny "$W/m" --head-only tie_word_embeddings=true
  recast '*=F16'
  converts $precision lm_head.weight=model.embed_tokens.weight
  tiny "$W/m"
  recast '*proj*=F16' '*norm*=F64' '*embed*=BF16'
  converts $precision
done
# The names of the base model alone.
tiny "$W/m" --strip-model
python3 - "$W/m" >"$W/pairs" <<'PY'
import json, struct, sys
with open(sys.argv[1] + "/model.safetensors", "rb") as f: header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
print("\n".join("%s=model.%s" % (k, k) for k in header if k not in ("__metadata__", "lm_head.weight")))
PY
mapfile -t pairs <"$W/pairs"
converts bf16 "${pairs[@]}"
tiny "$W/m" --two-shards
converts bf16
# Frozen tensors of a run that trains the others.
tiny "$W/m" tie_word_embeddings=true
recast '*=F16'
mkdir "$W/frozen"
samples 8 >"$W/data.jsonl"
cp -L "$DEMO"/tokenizer* "$W/m"
run finetune --model "$W/m" --data "$W/data.jsonl" --max-seq-length 16 --batch-size 2 --steps 2 --freeze 'model.embed_tokens.weight' --freeze 'model.layers.0.*' \
  --output "$W/o"
expect_code 0
check "the frozen tensors are as before" python3 - "$W/m" "$W/o" <<'PY'
import json, struct, sys
def read(path):
    with open(path + "/model.safetensors", "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0])); data = f.read()
    return {k: (x["dtype"], data[x["data_offsets"][0]:x["data_offsets"][1]]) for k, x in header.items() if k != "__metadata__"}
a, b = read(sys.argv[1]), read(sys.argv[2])
frozen = [k for k in b if "embed" in k or ".layers.0." in k]
sys.exit(not (frozen and all(a[k] == b[k] for k in frozen) and any(a[k] != b[k] for k in b)))
PY
# To another dtype: from the file's, not by way of the run's.
rm -rf "$W/m" "$W/o"
tiny "$W/m"
recast '*=F16'
run finetune --model "$W/m" --steps 0 --output "$W/o" --save-dtype fp32 --precision bf16
expect_code 0
check "float16 values are exact in float32" python3 - "$W/m" "$W/o" <<'PY'
import json, struct, sys
def read(path, form):
    with open(path + "/model.safetensors", "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0])); data = f.read()
    out = {}
    for k, x in header.items():
        if k == "__metadata__": continue
        raw = data[x["data_offsets"][0]:x["data_offsets"][1]]
        out[k] = struct.unpack("<%d%s" % (len(raw) // struct.calcsize(form), form), raw)
    return out
sys.exit(read(sys.argv[1], "e") != read(sys.argv[2], "f"))
PY
finish
