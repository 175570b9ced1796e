#!/bin/bash
# Runs every benchmark of one program briefly: it must name some and skip none (a skipped one exits with 0).
set -euo pipefail

output=$("$1" --benchmark_min_time=0.01 2>&1) || {
  printf '%s\n' "$output"
  exit 1
}
printf '%s\n' "$output"
if ! grep -Eq '[0-9] (ns|us|ms) ' <<<"$output" || grep -q 'ERROR OCCURRED' <<<"$output"; then
  echo "$1: no benchmark ran, or one was skipped" >&2
  exit 1
fi
