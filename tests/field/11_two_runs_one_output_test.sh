#!/bin/bash
# Two runs, one --output: a few in a hundred failed with a false message, because one removed the other's probe.
# shellcheck source=tests/field/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
samples 16 >"$W/d.jsonl"

# Runs that end soon wait for each other, or say the truth.
run finetune --model "$DEMO" --steps 0 --output "$W/o"
expect_code 0
for _ in 1 2 3 4 5 6 7 8; do
  for job in 1 2 3 4; do
    { "$TE" finetune --model "$DEMO" --steps 0 --output "$W/o" >"$W/.out$job" 2>>"$W/err"; echo $? >>"$W/codes"; } &
  done
  wait
done
COMMAND="te finetune --steps 0, 4 at a time"
ERR=$(<"$W/err")
check "32 runs" test "$(wc -l <"$W/codes")" -eq 32
check "no message but that of another run" test "$(grep -vc 'another run of te writes there (process [0-9]* on ' "$W/err")" -eq 0
check "codes 0 and 2 alone" test "$(grep -vcE '^(0|2)$' "$W/codes")" -eq 0
check "as many messages as refusals" test "$(grep -c '^2$' "$W/codes")" -eq "$(grep -c '' "$W/err")"
run inspect --model "$W/o"
expect_code 0
check "nothing is left beside it" test "$(find "$W" -name '.o.te-*' | wc -l)" -eq 0

# A long run keeps its --output from its beginning: the second one is told by whom.
"$TE" finetune --model "$DEMO" --data "$W/d.jsonl" --steps 100000 --batch-size 2 --warmup-steps 0 --output "$W/o" --log "$W/log.jsonl" \
  >"$W/long.out" 2>&1 </dev/null &
LONG=$!
for ((i = 0; i < 600; ++i)); do
  [[ -s $W/log.jsonl ]] && break
  sleep 0.1
done
ln -s o "$W/alias"
for output in o alias; do
  run finetune --model "$DEMO" --steps 0 --output "$W/$output"
  expect_code 2
  expect_lines ERR 1
  expect_line ERR "^te finetune: error: --output: .*/o: another run of te writes there \\(process $LONG on .*\\)"
done
run finetune --model "$DEMO" --data "$W/d.jsonl" --steps 1 --batch-size 2 --warmup-steps 0 --output "$W/other" --log "$W/log.jsonl"
expect_code 2
expect_line ERR '^te finetune: error: --log: .*another run of te writes it'
expect_no_file "$W/other"
run finetune --model "$DEMO" --steps 0 --output "$W/other"
expect_code 0
# Killed, it leaves no lock behind.
kill -KILL "$LONG"
wait "$LONG" 2>/dev/null
run finetune --model "$DEMO" --steps 0 --output "$W/o"
expect_code 0
check "nothing is left beside it" test "$(find "$W" -name '.o.te-*' | wc -l)" -eq 0

# What a lock file says is not believed, and a folder that cannot be written says so itself.
echo 'process 1 on nowhere' >"$W/.o.te-lock"
run finetune --model "$DEMO" --steps 0 --output "$W/o"
expect_code 0
mkdir "$W/closed"
chmod a-w "$W/closed"
if ! touch "$W/closed/probe" 2>/dev/null; then # root may
  run finetune --model "$DEMO" --steps 0 --output "$W/closed/o"
  expect_code 2
  expect_line ERR 'Permission denied'
fi
finish
