#!/bin/bash
# What the field tests share. Each reproduces a fault that users of such programs have reported, and fails where te has it.
#
#   # shellcheck source=tests/field/common.sh
#   source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
#   run generate --model "$DEMO" --prompt Once --max-new-tokens 5     # the program's output goes into $OUT and $ERR, its code into $CODE
#   expect_code 0
#   expect_line OUT 'Once upon'                                       # a line that the extended regular expression matches
#   expect_no_line ERR 'warning'
#   finish
#
# Bazel passes the program and the demo's checkpoint in TE and DEMO (BUILD); by hand:
#   TE=PROGRAM DEMO=models/demo/checkpoint bash tests/field/06_data_from_a_pipe_test.sh
set -u
: "${TE:?set TE to the te program}" "${DEMO:?set DEMO to models/demo/checkpoint}"
TE=$(readlink -f -- "$TE")
DEMO=$(readlink -f -- "$DEMO")
HERE=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
W=$(mktemp -d "${TEST_TMPDIR:-${TMPDIR:-/tmp}}/field.XXXXXX")
trap 'chmod -R u+w "$W"; rm -rf "$W"' EXIT
export TE DEMO HERE W OMP_WAIT_POLICY=passive
# Nobody's cache changes what a test sees.
export XDG_CACHE_HOME=$W/cache
CHECKS=0
FAILURES=0

# Runs te: output into OUT and ERR, exit code into CODE (128 + the signal's number when one ended it).
run() {
  COMMAND="te $*"
  "$TE" "$@" >"$W/.out" 2>"$W/.err" </dev/null
  CODE=$?
  OUT=$(tr -d '\0' <"$W/.out")
  ERR=$(tr -d '\0' <"$W/.err")
}

# The verdict on one check: `check WHAT CONDITION...` runs the condition as a command.
check() {
  local what=$1
  shift
  CHECKS=$((CHECKS + 1))
  "$@" && return 0
  FAILURES=$((FAILURES + 1))
  printf 'FAILED: %s\n  after:  %s\n  code:   %s\n  stdout: %s\n  stderr: %s\n' "$what" "${COMMAND:-}" "${CODE:-}" \
    "$(tail -n 5 <<<"${OUT:-}")" "$(tail -n 5 <<<"${ERR:-}")"
}

expect_code() { check "exit code $1" test "$CODE" -eq "$1"; }
expect_line() { check "a line of $1 that matches: $2" grep -qE -e "$2" <<<"${!1}"; }
has_no_line() { ! grep -qE -e "$2" <<<"$1"; }
expect_no_line() { check "no line of $1 that matches: $2" has_no_line "${!1}" "$2"; }
expect_lines() { check "$2 lines in $1" test "$(printf '%s' "${!1:+${!1}$'\n'}" | grep -c '')" -eq "$2"; }
expect_file() { check "a file $1" test -e "$1"; }
has_no_file() { [[ ! -e $1 ]]; }
expect_no_file() { check "no file $1" has_no_file "$1"; }

# Makes a small random checkpoint; tiny.py says what it takes.
tiny() { python3 "$HERE/tiny.py" "$@"; }

# N lines of training data.
samples() {
  local i
  for ((i = 1; i <= ${1:-16}; ++i)); do
    echo "{\"text\": \"Question $i: where does animal number $i live? Answer: in the forest.\"}"
  done
}

finish() {
  if [[ $CHECKS -eq 0 ]]; then
    echo "FAILED: nothing was checked"
    exit 1
  fi
  echo "$CHECKS checks, $FAILURES failed"
  exit $((FAILURES > 0))
}
