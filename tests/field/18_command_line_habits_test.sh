#!/bin/bash
# Habits from other programs: epochs, underscores, a positional model; and a warning of a peak that nobody asked for.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

samples 16 >"$W/d.jsonl"
FINETUNE=(finetune --model "$DEMO" --data "$W/d.jsonl" --output "$W/o")
refused() {
  local expected=$1
  shift
  run "$@"
  expect_code 2
  expect_lines ERR 1
  expect_line ERR "$expected"
}
refused 'unknown argument: --epochs \(te counts optimizer updates: --steps' "${FINETUNE[@]}" --epochs 3
expect_no_line ERR 'did you mean'
for flag in --num-epochs --num_train_epochs --epoch --epochs=3; do
  refused '--steps' "${FINETUNE[@]}" "$flag"
  expect_no_line ERR '--eps'
done
refused 'did you mean --batch-size\?' "${FINETUNE[@]}" --batch_size 4
refused 'did you mean --batch-size\?' "${FINETUNE[@]}" --bach-size 4
refused 'did you mean --batch-size\?' "${FINETUNE[@]}" --per_device_train_batch_size=4
refused 'did you mean --learning-rate\?' "${FINETUNE[@]}" --learning_rate 1e-5
refused 'did you mean --learning-rate\?' "${FINETUNE[@]}" --learing-rate 1e-5
refused 'did you mean --max-seq-length\?' "${FINETUNE[@]}" --max-length 8
refused 'did you mean --output\?' finetune --model "$DEMO" --output_dir "$W/o"
refused 'did you mean --precision\?' "${FINETUNE[@]}" --bf16
refused 'did you mean --recompute full\?' "${FINETUNE[@]}" --gradient_checkpointing
refused 'te trains the weights themselves' "${FINETUNE[@]}" --lora
refused 'did you mean --max-new-tokens\?' generate --model "$DEMO" --prompt a --max-tokens 5
refused 'did you mean --max-new-tokens\?' generate --model "$DEMO" --prompt a -n 5
refused 'te generate is greedy' generate --model "$DEMO" --prompt a --temperature 0.5
refused 'te generate is greedy' generate --model "$DEMO" --prompt a --seed 1
refused 'did you mean --model\?' inspect --modle "$DEMO"
refused "did you mean --model $DEMO\\?" inspect "$DEMO"
refused "did you mean --model $DEMO\\?" finetune "$DEMO" --data "$W/d.jsonl" --output "$W/o"
refused "did you mean --data $W/d.jsonl\\?" finetune --model "$DEMO" "$W/d.jsonl" --output "$W/o"
refused '--prompt of several words stands in quotes' generate --model "$DEMO" --prompt Once there was
refused 'did you mean finetune\?' train
refused 'did you mean finetune\?' finetun
refused 'did you mean generate\?' chat
refused 'unknown command: xyz;' xyz
refused 'did you mean te --help\?' help
# shellcheck disable=SC2016
refused '`te --version` prints it' inspect --version
# Nothing is near: nothing is suggested.
for flag in --bogus --zzz --foo-bar -x; do
  refused "unknown argument: $flag; see" "${FINETUNE[@]}" "$flag"
done
expect_no_file "$W/o"
for help in --help -h "finetune -h" "generate --help"; do
  # shellcheck disable=SC2086
  run $help
  expect_code 0
  expect_line OUT 'OPTIONS'
done

run "${FINETUNE[@]}" --steps 1 --lr 0
expect_code 0
expect_lines ERR 0
run "${FINETUNE[@]}" --steps 1 --lr 1e-5
expect_line ERR 'warning: the warm-up .* never reaches 1e-05'
finish
