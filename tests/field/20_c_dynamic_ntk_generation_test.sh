#!/bin/bash
# RoPE's dynamic scaling: Hugging Face's generate keeps each key as it was rotated when its token was the last one. --path hf, which
# has no cache, rotated all keys anew and left Hugging Face's tokens some way beyond max_position_embeddings.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# transformers 5.24, float32, model.generate(prompt, max_new_tokens=60, do_sample=False) over tests/golden_rope/dynamic-beyond
# (16 positions); tests/golden_rope/make_generated.py prints this table. use_cache=False leaves it at token 28 of the first.
TABLE=(
  "1,5,9 16,16,16,38,16,38,15,15,29,16,38,29,29,29,29,29,29,29,29,40,40,2,40,2,40,40,40,40,2,40,40,40,40,40,2,1,16,29,40,40,2,1,16,3,40,40,40,2,1,16,3,40,40,2,1,16,3,40,40,40"
  "7,3,1,4,1,5,9,2,6,3,1,4,1,5,9,2,6,3,1,4,1,5,9,2,6 21,16,16,16,16,16,16,16,16,16,16,16,16,16,21,16,21,16,21,16,21,16,21,16,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21,21"
)
MODEL=tests/golden_rope/dynamic-beyond/checkpoint
for row in "${TABLE[@]}"; do
  for path in te hf; do
    run generate --model "$MODEL" --path "$path" --precision fp32 --prompt-ids "${row% *}" --output-ids --max-new-tokens 60 --ignore-eos
    expect_code 0
    check "Hugging Face's tokens on path $path" test "$OUT" = "${row#* }"
    expect_line ERR 'warning: .* positions for 16 .*dynamic RoPE scaling'
  done
done
finish
