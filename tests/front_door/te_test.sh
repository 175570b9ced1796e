#!/bin/bash
# ./te against a Bazel of our own making: what it says, how it counts, where it runs, which codes it exits with.
set -euo pipefail

te=$(readlink -f "$1")
program=$(readlink -f "$2")
work=$TEST_TMPDIR
failures=0

expect() {
  local what=$1 want=$2 got=$3
  if [[ $got != "$want" ]]; then
    printf 'FAILED: %s\n  expected: %s\n  got:      %s\n' "$what" "$want" "$got"
    failures=$((failures + 1))
  fi
}

# Whether this machine has a CUDA toolkit must not matter.
export TE_CUDA=0

# Bazel's stand-in: `info` names a folder, `test` writes the events prepared in $work, both exit with $work/code.
export FAKE=$work
export BAZEL=$work/bazel
cat >"$BAZEL" <<'EOF'
#!/bin/bash
for argument in "$@"; do
  [[ $argument == --build_event_json_file=* ]] && cp "$FAKE/events" "${argument#*=}"
done
[[ ${1:-} == info ]] && echo "$FAKE/bin"
[[ ${1:-} == build && -e $FAKE/broken ]] && { echo "ERROR: broken" >&2; exit 1; }
[[ ${1:-} == test ]] && { printf '%s\n' "$@" >"$FAKE/arguments"; exit "$(cat "$FAKE/code")"; }
exit 0
EOF
mkdir -p "$work/bin/models/cli"
cat >"$work/bin/models/cli/te" <<'EOF'
#!/bin/bash
printf '%s|%s\n' "$PWD" "$*"
exit 7
EOF
chmod +x "$BAZEL" "$work/bin/models/cli/te"

# The help names every command of the program.
help=$("$te" --help)
for name in finetune trace inspect generate demo test setup; do
  expect "help names $name" 1 "$(grep -cE "^  $name " <<<"$help")"
done
mapfile -t commands < <("$program" --help | sed -n '/^[A-Za-z]*COMMANDS:/I,/^$/s/^  \([a-z]\+\) .*/\1/p')
expect "the program has commands" 4 "${#commands[@]}"
for name in "${commands[@]}"; do
  expect "help names the program's $name" 1 "$(grep -cE "^  $name " <<<"$help")"
done
code=0
"$te" >/dev/null 2>&1 || code=$?
expect "no command: exit code" 2 "$code"

# Wrong use is one line and 2.
code=0
output=$("$te" setup nonsense 2>&1) || code=$?
expect "setup nonsense" "2 te: error: setup takes nothing or 'check', not 'nonsense'" "$code $output"

# What is missing is named before anything is done about it.
code=0
output=$(TE_INSTALL=0 EIGEN_ROOT=/nowhere "$te" setup 2>&1) || code=$?
expect "a missing library: exit code" 2 "$code"
expect "a missing library is named" "te: these packages are missing: libeigen3-dev" "$(head -n 1 <<<"$output")"

# cudnn-frontend is asked for where a CUDA toolkit is found, and only there.
mkdir -p "$work/cuda/bin"
touch "$work/cuda/bin/nvcc"
cuda_setup() { env TE_INSTALL=0 CUDNN_FRONTEND_ROOT=/nowhere "$@" "$te" setup 2>&1; }
code=0
output=$(cuda_setup TE_CUDA= CUDA_HOME="$work/cuda") || code=$?
expect "no cudnn-frontend: exit code" 2 "$code"
expect "cudnn-frontend is named" 1 "$(head -n 1 <<<"$output" | grep -c "PyPI's package nvidia-cudnn-frontend==")"
expect "what to do instead is named" 1 "$(grep -c 'TE_CUDA=0$' <<<"$output")"
expect "no CUDA toolkit" "" "$(cuda_setup TE_CUDA= CUDA_HOME="$work/nowhere")"
expect "CUDA turned off" "" "$(cuda_setup TE_CUDA=0 CUDA_HOME="$work/cuda")"
expect "CUDA turned off for Bazel" "" "$(cuda_setup TE_CUDA= TE_BAZEL_FLAGS=--config=cpu CUDA_HOME="$work/cuda")"

# A command runs in the caller's folder, with its words and its exit code.
mkdir -p "$work/some folder"
ln -s "$te" "$work/link"
code=0
output=$(cd "$work/some folder" && ../link finetune --model 'a b' 2>&1) || code=$?
expect "program" "7 $work/some folder|finetune --model a b" "$code $output"
touch "$work/broken"
code=0
output=$("$te" finetune 2>&1) || code=$?
expect "a broken build" "2 te: error: the build failed" "$code $(tail -n 1 <<<"$output")"
rm "$work/broken"

# Counting: two cases pass and one is skipped; one of three fails; a time-out without a count is one failure; what does
# not build is one; a library that is built is none.
xml() {
  mkdir -p "$work/logs/$1"
  printf '<?xml version="1.0"?>\n<testsuites tests="99" failures="99">\n  <testsuite name="x" %s>\n' "$2" \
    >"$work/logs/$1/test.xml"
}
event_result() {
  printf '{"id":{"testResult":{"label":"//%s","run":1}},"testResult":{"testActionOutput":[{"name":"test.log","uri":"file:///x"},{"name":"test.xml","uri":"file://%s"}]}}\n' \
    "$1" "$work/logs/$1/test.xml"
}
event_summary() {
  printf '{"id":{"testSummary":{"label":"//%s"}},"testSummary":{"overallStatus":"%s"}}\n' "$1" "$2"
}
xml good 'tests="3" failures="0" skipped="1" errors="0"'
xml bad 'tests="3" failures="1" errors="0"'
xml slow 'tests="1" failures="0" errors="0"'
{
  printf '{"id":{"targetCompleted":{"label":"//library"}},"completed":{"success":true}}\n'
  event_result good
  event_summary good PASSED
  event_result bad
  event_summary bad FAILED
  event_result slow
  event_summary slow TIMEOUT
  printf '{"id":{"targetCompleted":{"label":"//unbuilt"}},"completed":{"failureDetail":{}}}\n'
} >"$work/events"
echo 3 >"$work/code"
code=0
output=$("$te" test --config=asan 2>/dev/null) || code=$?
expect "counts" "3 4 passed, 3 failed, 1 skipped" "$code $(tail -n 1 <<<"$output")"
expect "which failed" 3 "$(grep -cE '^(FAILED //bad|TIMEOUT //slow|FAILED_TO_BUILD //unbuilt)$' <<<"$output")"
expect "everything is asked for" 1 "$(grep -cx '//\.\.\.' "$work/arguments")"
expect "flags are passed on" 1 "$(grep -cx -e '--config=asan' "$work/arguments")"

event_summary good PASSED >"$work/events"
event_result good >>"$work/events"
echo 0 >"$work/code"
code=0
output=$("$te" test //good 2>/dev/null) || code=$?
expect "all pass" "0 2 passed, 0 failed, 1 skipped" "$code $(tail -n 1 <<<"$output")"
expect "only what was named" 0 "$(grep -cx '//\.\.\.' "$work/arguments")"

: >"$work/events"
echo 1 >"$work/code"
code=0
output=$("$te" test //nowhere 2>/dev/null) || code=$?
expect "nothing could run" "1 0 passed, 1 failed" "$code $(tail -n 1 <<<"$output")"

[[ $failures -eq 0 ]]
