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

# Whether this machine has a CUDA toolkit or a driver must not matter.
export TE_CUDA=0
unset CUDA_PATH CUDA_HOME LD_LIBRARY_PATH
export HOME=$work/home
mkdir "$HOME"

# Bazel's stand-in: `info` names a folder; `test` writes the events prepared in $work and exits with $work/code; `build`
# writes $work/progress, for $work/seconds. All keep their words in $work/arguments.
export FAKE=$work
export BAZEL=$work/bazel
cat >"$BAZEL" <<'EOF'
#!/bin/bash
for argument in "$@"; do
  [[ $argument == --build_event_json_file=* ]] && cp "$FAKE/events" "${argument#*=}"
done
printf '%s\n' "$@" >"$FAKE/arguments"
[[ ${1:-} == --output_user_root=* ]] && shift
[[ ${1:-} == info ]] && echo "$FAKE/bin"
if [[ ${1:-} == build ]]; then
  for ((i = 0; i < 10 * $(cat "$FAKE/seconds" 2>/dev/null || echo 0); ++i)); do
    cat "$FAKE/progress" >&2
    sleep 0.1
  done
  [[ -e $FAKE/broken ]] && { cat "$FAKE/progress" >&2; echo "ERROR: broken" >&2; exit 1; }
fi
[[ ${1:-} == test ]] && exit "$(cat "$FAKE/code")"
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

# CUDA is built, and cudnn-frontend asked for, where a toolkit and a driver are found, or a toolkit and the wish.
mkdir -p "$work/cuda/bin" "$work/driver/stubs" "$work/driver/compat" "$work/driver/lib"
touch "$work/cuda/bin/nvcc" "$work"/driver/{stubs,compat,lib}/libcuda.so.1
ln -s nowhere "$work/driver/libcuda.so.1"
cuda_setup() { env TE_INSTALL=0 CUDNN_FRONTEND_ROOT=/nowhere "$@" "$te" setup 2>&1; }
wants_cuda() { cuda_setup "$@" | head -n 1 | grep -c "PyPI's package nvidia-cudnn-frontend==" || true; }
code=0
output=$(cuda_setup TE_CUDA=1 CUDA_HOME="$work/cuda") || code=$?
expect "no cudnn-frontend: exit code" 2 "$code"
expect "what to do instead is named" 1 "$(grep -c 'TE_CUDA=0$' <<<"$output")"
expect "CUDA on request" 1 "$(wants_cuda TE_CUDA=1 CUDA_HOME="$work/cuda")"
expect "CUDA on request, to Bazel" 1 "$(wants_cuda TE_CUDA= TE_BAZEL_FLAGS=--config=cuda CUDA_HOME="$work/cuda")"
expect "a driver" 1 "$(wants_cuda TE_CUDA= LD_LIBRARY_PATH="/nowhere:$work/driver/lib" CUDA_HOME="$work/cuda")"
expect "a driver, CUDA_PATH" 1 "$(wants_cuda TE_CUDA= LD_LIBRARY_PATH="$work/driver/lib" CUDA_PATH="$work/cuda")"
expect "a driver, CUDA turned off" 0 "$(wants_cuda TE_CUDA=0 LD_LIBRARY_PATH="$work/driver/lib" CUDA_HOME="$work/cuda")"
expect "a driver, CUDA turned off for Bazel" 0 \
  "$(wants_cuda TE_CUDA= TE_BAZEL_FLAGS=--config=cpu LD_LIBRARY_PATH="$work/driver/lib" CUDA_HOME="$work/cuda")"
expect "a driver, no toolkit" 0 "$(wants_cuda TE_CUDA= LD_LIBRARY_PATH="$work/driver/lib" CUDA_HOME="$work/nowhere")"
# On a machine with a driver of its own the loader finds that one.
if [[ ! $(ldconfig -p 2>/dev/null || /sbin/ldconfig -p) == *libcuda.so.1* && ! -e /usr/lib/wsl/lib/libcuda.so.1 ]]; then
  expect "no driver" 0 "$(wants_cuda TE_CUDA= CUDA_HOME="$work/cuda")"
  for folder in "$work/driver/stubs" "$work/driver/compat" "$work/driver"; do
    expect "no driver in $folder" 0 "$(wants_cuda TE_CUDA= LD_LIBRARY_PATH="$folder" CUDA_HOME="$work/cuda")"
  done
fi
code=0
output=$(cuda_setup TE_CUDA=1 CUDA_HOME="$work/nowhere") || code=$?
expect "no toolkit, and CUDA on request" "2 te: error: no CUDA toolkit: there is no $work/nowhere/bin/nvcc; set CUDA_HOME to \
a CUDA toolkit's folder, or build without CUDA: TE_CUDA=0" "$code $output"
code=0
output=$(cuda_setup TE_CUDA=yes) || code=$?
expect "TE_CUDA=yes" "2 1" "$code $(grep -c "^te: error: TE_CUDA is 'yes'; expected 0" <<<"$output")"

# The first build says what it builds and how long it takes; a long one how far it is, terminal or not.
mv "$work/bin/models/cli/te" "$work/te"
output=$("$te" finetune 2>&1 >/dev/null || true)
expect "the first build" 1 "$(grep -cE '^te: building te for this CPU; the first time this takes about [0-9]+ minutes? on [0-9]+ cores?$' <<<"$output")"
expect "without CUDA, and why" 1 "$(grep -c '^te: without CUDA: CUDA is turned off$' <<<"$output")"
output=$(TE_CUDA=1 CUDA_HOME=$work/cuda CUDNN_FRONTEND_ROOT=$work/frontend "$te" finetune 2>&1 >/dev/null || true)
expect "CUDA's headers first" 1 "$(grep -c 'nvidia-cudnn-frontend' <<<"$output")"
mkdir -p "$work/frontend/include"
touch "$work/frontend/include/cudnn_frontend.h"
output=$(TE_CUDA=1 CUDA_HOME=$work/cuda CUDNN_FRONTEND_ROOT=$work/frontend "$te" finetune 2>&1 >/dev/null || true)
expect "the first build with CUDA" 1 "$(grep -c "^te: building te for this CPU and for CUDA ($work/cuda); the first" <<<"$output")"
: >"$work/events"
echo 0 >"$work/code"
output=$("$te" test 2>&1 || true)
expect "the first test" 1 "$(grep -c '^te: building all tests for this CPU; the first time this takes' <<<"$output")"
mv "$work/te" "$work/bin/models/cli/te"
echo '[1,234 / 5,678] Compiling some/file.cc; 3s linux-sandbox' >"$work/progress"
echo 17 >"$work/seconds"
output=$("$te" finetune 2>&1 >/dev/null || true)
expect "a long build" "te: [1,234/5,678] Compiling some/file.cc" "$output"
rm "$work/seconds"

# Without a HOME that can be written Bazel's output stands elsewhere, in a folder of this user alone; the place is named once.
mkdir "$work/tmp"
no_home() { { env HOME=/dev/null/home TMPDIR="$work/tmp" "$@" "$te" finetune >/dev/null || true; } 2>&1; }
outputs=$work/tmp/te-$(id -u)/bazel
expect "no HOME: said" "te: HOME ('/dev/null/home') cannot be written: Bazel's output goes to $outputs" "$(no_home)"
expect "no HOME: done" 1 "$(grep -cx -e "--output_user_root=$outputs" "$work/arguments")"
expect "no HOME: private" 700 "$(stat -c %a "$work/tmp/te-$(id -u)")"
mkdir -p "$outputs"
expect "no HOME: said once" "" "$(no_home)"
expect "no HOME: where the user says" "" "$(no_home TE_BAZEL_STARTUP_FLAGS=--output_user_root=/else/where)"
expect "no HOME: there" 1 "$(grep -cx -e "--output_user_root=/else/where" "$work/arguments")"
expect "no HOME: there alone" 0 "$(grep -cx -e "--output_user_root=$outputs" "$work/arguments")"
rm -r "$work/tmp/te-$(id -u)"
ln -s "$work/home" "$work/tmp/te-$(id -u)"
expect "no HOME: somebody's link" 1 "$(no_home | grep -c "^te: error: .*te-$(id -u) is not this user's; set HOME or TMPDIR")"
code=0
output=$(TMPDIR=/nowhere "$te" finetune 2>&1) || code=$?
expect "no TMPDIR" "2 te: error: no file can be written in '/nowhere'; set TMPDIR to a folder where it can" "$code $output"

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
