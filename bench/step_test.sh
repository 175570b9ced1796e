#!/bin/bash
# A small step on both paths: bench/step must end in its table, with a loss near that of a uniform guess.
set -euo pipefail

for path in te hf; do
  for precision in fp32 bf16; do
    output=$("$1" --path "$path" --precision "$precision" --layers 1 --vocab-size 1000 --batch-size 2 \
      --sequence-length 32 --steps 2 --warmup 1 --profile --kernels --json "$TEST_TMPDIR/step.json")
    printf '%s\n' "$output"
    grep -q '^model / GEMM' <<<"$output"
    grep -q '^check: .* of \(12\) tensors changed$' <<<"$output"
    grep -q '"model_tflops_per_second": [0-9.e-]*[1-9]' "$TEST_TMPDIR/step.json"
    grep -q '^gemm wgrad' <<<"$output"
    # ln(1000) = 6.9; weights of deviation 0.02 stay near it.
    grep -Eq '^step 1: .* loss [67]\.' <<<"$output"
  done
done
for recipe in delayed current block mxfp8 nvfp4; do
  output=$("$1" --precision fp8 --recipe "$recipe" --layers 1 --vocab-size 1000 --batch-size 2 --sequence-length 32 \
    --steps 1 --warmup 1)
  grep -q '^check: .* of \(12\) tensors changed$' <<<"$output"
done
for recipe in delayed current; do
  output=$("$1" --precision fp8 --recipe "$recipe" --fp8-weights-only --rounding stochastic --layers 1 --vocab-size 1000 \
    --batch-size 2 --sequence-length 32 --steps 1 --warmup 1 --profile)
  grep -q '^weights: fp8 alone$' <<<"$output"
  grep -q '^transpose ' <<<"$output"
  grep -q '^check: .* of \(12\) tensors changed$' <<<"$output"
done
for flags in "--precision bf16" "--precision fp8 --rounding nearest" "--precision fp8 --recipe block --rounding stochastic"; do
  # shellcheck disable=SC2086
  if "$1" $flags --fp8-weights-only --layers 1 --steps 1 --warmup 0 2>/dev/null; then
    echo "--fp8-weights-only was taken with $flags" >&2
    exit 1
  fi
done
output=$("$1" --precision fp8 --fp8-dpa --layers 1 --vocab-size 1000 --batch-size 2 --sequence-length 32 \
  --steps 1 --warmup 1 --profile)
grep -q '^attention_fp8_backward' <<<"$output"
if "$1" --precision fp8 --recipe current --fp8-dpa 2>/dev/null; then
  echo "FP8 attention was taken by a recipe without it" >&2
  exit 1
fi
# Products of two layers and lm_head: of the four of a recomputed layer three run again.
products() {
  "$1" --precision "$2" --layers 2 --vocab-size 1000 --batch-size 2 --sequence-length 32 --steps 1 --warmup 1 \
    --check-steps 0 --profile "${@:3}" | sed -n 's/^gemm fprop *\([0-9]*\) .*/\1/p'
}
counts="$(products "$1" fp8) $(products "$1" fp8 --recompute full) "
counts+=$(products "$1" fp8 --recompute full --recompute-num-layers 1)
if [[ $counts != "9 15 12" ]]; then
  echo "forward products with no layer, both and one recomputed: $counts; expected 9 15 12" >&2
  exit 1
fi
for flags in "--recompute-num-layers 1" "--recompute full --recompute-num-layers 3" "--recompute selective"; do
  # shellcheck disable=SC2086
  if "$1" $flags --layers 2 --steps 1 --warmup 0 2>/dev/null; then
    echo "$flags was taken of two layers" >&2
    exit 1
  fi
done
if "$1" --choices "$TEST_TMPDIR/choices.txt" --layers 1 --steps 1 2>"$TEST_TMPDIR/error" || [ -e "$TEST_TMPDIR/choices.txt" ]; then
  echo "choices of algorithms were taken by a device that makes none" >&2
  exit 1
fi
grep -q 'choices.*expected --device cuda' "$TEST_TMPDIR/error"
for flags in "--update-beside-tokens 0" "--sm-margin 4"; do
  # shellcheck disable=SC2086
  if "$1" $flags --layers 1 --steps 1 --warmup 0 2>"$TEST_TMPDIR/error"; then
    echo "$flags was taken by a device with one queue" >&2
    exit 1
  fi
  grep -Eq "^step: error: ${flags% *}: nothing (runs )?beside this backward pass" "$TEST_TMPDIR/error"
done
"$1" --update-beside-tokens -1 --layers 1 --vocab-size 1000 --batch-size 2 --sequence-length 32 --steps 1 --warmup 0 >/dev/null
if "$1" --precision fp64 2>/dev/null; then
  echo "an unknown precision was taken" >&2
  exit 1
fi
if "$1" --precision fp8 --path hf 2>/dev/null; then
  echo "FP8 was taken on a path without it" >&2
  exit 1
fi
