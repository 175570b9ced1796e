#!/bin/bash
# A reader that leaves: with that of standard error gone, the first warning ended the run by SIGABRT, and nothing was saved.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
samples 16 >"$W/d.jsonl"
# The warm-up is longer than the run: a warning.
TRAIN=(finetune --model "$DEMO" --data "$W/d.jsonl" --steps 3 --batch-size 2)

# te COMMAND... with standard output and standard error as the redirections of `$1` say.
redirected() {
  local how=$1
  shift
  COMMAND="te $* $how"
  rm -f "$W/.out" "$W/.err" "$W/.code"
  touch "$W/.out" "$W/.err"
  case $how in
    '2>&1 | true') { "$TE" "$@" 2>&1; echo $? >"$W/.code"; } </dev/null | true ;;
    '| true') { "$TE" "$@" 2>"$W/.err"; echo $? >"$W/.code"; } </dev/null | true ;;
    '2> >(true)') { { "$TE" "$@" 2>&1 >"$W/.out"; echo $? >"$W/.code"; } </dev/null | true; } ;;
    '2>/dev/full') "$TE" "$@" >"$W/.out" 2>/dev/full </dev/null; echo $? >"$W/.code" ;;
    '>/dev/full') "$TE" "$@" >/dev/full 2>"$W/.err" </dev/null; echo $? >"$W/.code" ;;
    '>/dev/full 2>&1') "$TE" "$@" >/dev/full 2>&1 </dev/null; echo $? >"$W/.code" ;;
    '>&-') "$TE" "$@" >&- 2>"$W/.err" </dev/null; echo $? >"$W/.code" ;;
    '2>&-') "$TE" "$@" >"$W/.out" 2>&- </dev/null; echo $? >"$W/.code" ;;
    '<&- >&- 2>&-') "$TE" "$@" <&- >&- 2>&-; echo $? >"$W/.code" ;;
  esac
  CODE=$(<"$W/.code")
  OUT=$(<"$W/.out")
  ERR=$(<"$W/.err")
}

# No reader, no loss: the run goes on, saves, and is a success.
for how in '2>&1 | true' '| true' '2> >(true)'; do
  rm -rf "$W/o"
  redirected "$how" "${TRAIN[@]}" --output "$W/o"
  expect_code 0
  expect_file "$W/o/model.safetensors"
done

# What could not be written is lost: the run goes on and saves, and the code is 1. It is said where it can be.
for how in '2>/dev/full' '>/dev/full' '>/dev/full 2>&1' '>&-' '2>&-' '<&- >&- 2>&-'; do
  rm -rf "$W/o"
  redirected "$how" "${TRAIN[@]}" --output "$W/o"
  expect_code 1
  expect_file "$W/o/model.safetensors"
  case $how in
    '>/dev/full') expect_line ERR '^te finetune: error: standard output: No space left on device' ;;
    '>&-') expect_line ERR '^te finetune: error: standard output: Bad file descriptor' ;;
    '2>/dev/full') expect_line OUT '^te finetune: standard error: No space left on device' ;;
    '2>&-') expect_line OUT '^te finetune: standard error: Bad file descriptor' ;;
  esac
  run inspect --model "$W/o"
  expect_code 0
done
# Nothing was to be said there, so nothing is lost.
rm -rf "$W/o"
redirected '2>&-' "${TRAIN[@]}" --warmup-steps 0 --output "$W/o"
expect_code 0

# No file gets the number of a closed stream, and with it our messages.
cp -rL "$DEMO" "$W/m"
chmod -R u+w "$W/m"
redirected '<&- >&- 2>&-' "${TRAIN[@]}" --output "$W/m" --model "$W/m" --log "$W/log.jsonl"
for file in config.json tokenizer.model tokenizer_config.json; do
  check "$file as it was" cmp -s "$DEMO/$file" "$W/m/$file"
done
check "3 lines of JSON in the log" test "$(grep -c '^{"step":.*}$' "$W/log.jsonl")" -eq 3

# The other commands, and what only prints.
for name in generate inspect help version; do
  case $name in
    generate) command=(generate --model "$DEMO" --prompt Once --max-new-tokens 20) ;;
    inspect) command=(inspect --model "$DEMO") ;;
    help) command=(finetune --help) ;;
    version) command=(--version) ;;
  esac
  for how in '2>&1 | true' '| true' '2> >(true)' '2>/dev/full' '2>&-'; do
    redirected "$how" "${command[@]}"
    expect_code 0
    check "nothing on stderr" test -z "$ERR"
  done
  for how in '>/dev/full' '>&-'; do
    redirected "$how" "${command[@]}"
    expect_code 1
    expect_lines ERR 1
    expect_line ERR '^te.*: error: standard output: (No space left on device|Bad file descriptor)'
  done
done

# An error stays that error, with nowhere to say it.
for how in '2>&1 | true' '>/dev/full 2>&1' '<&- >&- 2>&-' '2>/dev/full'; do
  redirected "$how" inspect --model "$W/none"
  expect_code 2
  redirected "$how" generate --nonsense
  expect_code 2
done

# A reader that has enough ends `te generate` early, not the run of minutes that it was asked for.
COMMAND="te generate | head -c 1"
{ timeout 100 "$TE" generate --model "$DEMO" --prompt Once --ignore-eos --max-new-tokens 400 2>"$W/.err"; echo $? >"$W/.code"; } | head -c 1 >"$W/.out"
CODE=$(<"$W/.code")
ERR=$(<"$W/.err")
expect_code 0
check "nothing on stderr" test -z "$ERR"
finish
