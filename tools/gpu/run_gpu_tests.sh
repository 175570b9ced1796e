#!/bin/bash
# Runs the GPU tests of this pack and says which pass. The last line is 'N passed, N failed'.
#
#   ./run_gpu_tests.sh [--filter PATTERN] [--isolate] [--sanitizer TOOL]
#     --filter     GoogleTest's pattern: 'RmsNorm*', '-*Large*'
#     --isolate    a process for each suite: after a fault in a kernel, CUDA refuses all later work of its process
#     --sanitizer  under compute-sanitizer: memcheck, racecheck, initcheck or synccheck
#   Logs, with all that each program printed: logs/. A program that runs for TE_TEST_SECONDS (600) is stopped.
set -uo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" || exit 2

filter='*'
isolate=0
launcher=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --filter)
      filter=${2:?--filter takes a pattern}
      shift
      ;;
    --isolate) isolate=1 ;;
    --sanitizer)
      launcher=(compute-sanitizer --tool "${2:?--sanitizer takes a tool}" --error-exitcode 99 --print-limit 20 --report-api-errors no)
      shift
      ;;
    *)
      sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' run_gpu_tests.sh >&2
      exit 2
      ;;
  esac
  shift
done

export TE_TEST_DEVICE=cuda
# Nobody's cache changes what a test sees.
export TE_CHOICES_CACHE=0
launcher=(timeout --kill-after=10 "${TE_TEST_SECONDS:-600}" "${launcher[@]}")
results=$(mktemp)
flags=$(mktemp)
trap 'rm -f "$results" "$flags"' EXIT
mkdir -p logs

# Reads GoogleTest's output: a line for each test as it ends, and what a failing one said. (Not awk: Debian's waits for
# 4096 bytes of its input, and a test that hangs would hide those that passed before it.)
judge() {
  local line test='' said=''
  verdict() {
    printf '%s %s%s\n' "$1" "$test" "$2"
    printf '%s %s\n' "$1" "$test" >>"$results"
    [[ $1 != PASS ]] && printf '%s' "$said"
    test='' said=''
  }
  while IFS= read -r line || [[ -n $line ]]; do
    case $line in
      '[ RUN      ] '*)
        test=${line#*] } said=''
        continue
        ;;
      '[       OK ] '*) [[ -n $test ]] && verdict PASS "${line#*"$test"}" && continue ;;
      '[  FAILED  ] '*) [[ -n $test ]] && verdict FAIL '' && continue ;;
      '[  SKIPPED ] '*) [[ -n $test ]] && verdict SKIP '' && continue ;;
    esac
    if [[ -n $test ]]; then
      said+="    $line"$'\n'
    elif [[ $line == =========* || $line == *[Ee]rror* ]]; then # of a sanitizer, of a program that stops before its tests
      printf '    %s\n' "$line"
    fi
  done
  if [[ -n $test ]]; then
    said+=$'    (the program ended here)\n'
    verdict FAIL ''
  fi
}

# The tests of `program` that `pattern` names, one a line.
tests_of() {
  ./with_cuda "bin/$1" --gtest_list_tests "--gtest_filter=$2" |
    awk '/^[^ ].*\.( |$)/ { suite = $1 } /^  / { print suite $1 }'
}

# Runs the named tests; those behind a crash get a fresh process.
run_tests() {
  local program=$1 code done_before
  shift
  local names=("$@") crashes=0
  while [[ ${#names[@]} -gt 0 ]]; do
    (IFS=: && printf -- '--gtest_filter=%s\n' "${names[*]}") >"$flags"
    done_before=$(wc -l <"$results")
    ./with_cuda "${launcher[@]}" "bin/$program" "--gtest_flagfile=$flags" --gtest_color=no 2>&1 |
      tee -a "logs/$program.log" | judge
    code=${PIPESTATUS[0]}
    mapfile -t names < <(printf '%s\n' "${names[@]}" | grep -v -x -F -f <(cut -d ' ' -f 2- "$results"))
    [[ $code -eq 99 ]] && { printf 'FAIL %s under the sanitizer\n' "$program" | tee -a "$results"; return; }
    if [[ ${#names[@]} -gt 0 ]]; then
      crashes=$((crashes + 1))
      printf 'run_gpu_tests: %s ended with code %d before %d of its tests\n' "$program" "$code" "${#names[@]}"
      if [[ $crashes -eq 5 || $(wc -l <"$results") -eq $done_before ]]; then
        printf 'FAIL %s (not run)\n' "${names[@]}" | tee -a "$results"
        return
      fi
    elif [[ $code -ne 0 ]] && ! tail -n +$((done_before + 1)) "$results" | grep -q '^FAIL'; then
      printf 'FAIL %s: exit code %d\n' "$program" "$code" | tee -a "$results"
    fi
  done
}

TE_VERBOSE=1 ./with_cuda true || exit 2
while read -r program; do
  : >"logs/$program.log"
  printf '\n== %s\n' "$program"
  mapfile -t names < <(tests_of "$program" "$filter")
  if [[ ${#names[@]} -eq 0 ]]; then
    [[ $filter == '*' ]] && printf 'FAIL %s: it lists no test\n' "$program" | tee -a "$results"
    continue
  fi
  if [[ $isolate -eq 1 ]]; then
    mapfile -t suites < <(printf '%s\n' "${names[@]}" | cut -d . -f 1 | uniq)
    for suite in "${suites[@]}"; do
      mapfile -t of_suite < <(printf '%s\n' "${names[@]}" | grep "^$suite\.")
      run_tests "$program" "${of_suite[@]}"
    done
  else
    run_tests "$program" "${names[@]}"
  fi
done <test_programs

passed=$(grep -c '^PASS' "$results")
failed=$(grep -c '^FAIL' "$results")
skipped=$(grep -c '^SKIP' "$results")
printf '\n'
[[ $failed -gt 0 ]] && grep '^FAIL' "$results"
[[ $skipped -gt 0 ]] && printf '%d skipped\n' "$skipped"
printf '%d passed, %d failed\n' "$passed" "$failed"
[[ $failed -eq 0 && $passed -gt 0 ]]
