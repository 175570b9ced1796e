#!/bin/bash
# The demo runs from end to end, its loss falls, and what it wrote answers.
set -euo pipefail

output=$(mktemp -d "${TEST_TMPDIR:-/tmp}/demo.XXXXXX")
TE_BIN=models/cli/te models/demo/demo.sh "$output" | tee "$output/printed"
grep -q 'finetuning steps complete!' "$output/printed"
grep -q 'The fox lives in' "$output/printed" || { echo "the tuned model does not answer" >&2; exit 1; }
first=$(head -n 1 "$output/log.jsonl" | sed 's/.*"loss": *\([0-9.]*\).*/\1/')
last=$(tail -n 1 "$output/log.jsonl" | sed 's/.*"loss": *\([0-9.]*\).*/\1/')
awk -v first="$first" -v last="$last" 'BEGIN { exit !(last > 0 && last < first / 2) }' ||
  { echo "the loss went from $first to $last" >&2; exit 1; }
