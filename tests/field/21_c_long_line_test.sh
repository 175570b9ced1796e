#!/bin/bash
# A line of 10 MB took 10 to 24 s and a gigabyte, without a word, of which --max-seq-length then cut all but 256 tokens.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

python3 - "$W/d.txt" <<'PY'
import sys
words = "the fox lives in the wood and the animal asks where the number of the question is".split()
text = " ".join(words[i * 7919 % len(words)] for i in range(2_000_000))[:10_000_000]
open(sys.argv[1], "w").write(text + "\n")
PY
FINETUNE=(finetune --model "$DEMO" --data "$W/d.txt" --batch-size 1 --steps 1 --warmup-steps 0 --lr 0 --precision fp32 --output "$W/o" --threads 1)
/usr/bin/python3 - "$TE" "${FINETUNE[@]}" >"$W/out" <<'PY'
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime, used.ru_maxrss // 1024)
PY
read -r SECONDS_USED MEGABYTES <"$W/out"
echo "$SECONDS_USED s, $MEGABYTES MB"
# Generous: SentencePiece alone takes about 7 s for the whole line where this takes 0.2.
check "user time below 3 s" python3 -c "import sys; sys.exit(not $SECONDS_USED < 3)"
check "less than 300 MB" test "$MEGABYTES" -lt 300
# The loss is that of the text's beginning: what was left alone changes nothing.
run "${FINETUNE[@]}"
expect_code 0
expect_line OUT '1 samples cut to 256 tokens'
LOSS=$(grep -oE 'loss [0-9.]+' <<<"$OUT")
head -c 20000 "$W/d.txt" >"$W/short.txt"
mv "$W/short.txt" "$W/d.txt"
run "${FINETUNE[@]}"
check "the same loss" test "$(grep -oE 'loss [0-9.]+' <<<"$OUT")" = "$LOSS"
finish
