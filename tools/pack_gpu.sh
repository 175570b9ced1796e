#!/bin/bash
# Packs the GPU tests and benchmarks with all they need but CUDA and the C and C++ runtimes into one folder, for a host
# that has a GPU and no Bazel.
#
#   tools/pack_gpu.sh [--output DIR]     DIR: .pack/gpu unless given; what is in it is replaced
#   tools/pack_gpu.sh --only //bench:fp8_attention     this program alone; no tests, data or scripts
# Then, on the host: DIR/run_gpu_tests.sh, DIR/with_cuda DIR/bin/step --help, python3 DIR/bench/side_by_side.py
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."

# Test programs that need a GPU, and what the benchmarks run.
tests=(
  //tests:cuda_tests
)
benchmarks=(
  //bench:step
  //bench:operations_cuda
  //bench:tune_choices
  //models/cli:te
)
# What tests and scripts read, with the folders they have here.
data=(
  tests/golden
  tests/golden_rope
)
scripts=(
  bench/curves.py
  bench/fp8_curves.py
  bench/fp8_hidden_sizes.py
  bench/huggingface_step.py
  bench/loss_curve.py
  bench/side_by_side.py
)
readonly limit_mb=40

fail() {
  printf 'pack_gpu: error: %s\n' "$1" >&2
  exit 2
}

output=.pack/gpu
while (($# > 0)); do
  case $1 in
    --output) output=${2:?--output takes a folder} ;;
    --only)
      benchmarks=("${2:?--only takes a label, as //bench:fp8_attention}")
      tests=()
      data=()
      scripts=()
      ;;
    *) fail "unknown argument '$1'; usage: tools/pack_gpu.sh [--output DIR] [--only LABEL]" ;;
  esac
  shift 2
done
readonly tests benchmarks data scripts
if [[ -e $output && ! -e $output/cuda_libraries && -n $(ls -A "$output") ]]; then
  fail "$output holds something that is no pack"
fi

bazel=${BAZEL:-bazel}
startup=()
read -ra startup <<<"${TE_BAZEL_STARTUP_FLAGS:-}"
flags=()
read -ra flags <<<"${TE_BAZEL_FLAGS:-}"
flags+=(--config=gpu)
"$bazel" "${startup[@]}" build "${flags[@]}" --show_result=0 -- "${tests[@]}" "${benchmarks[@]}" || fail "the build failed"
bin=$("$bazel" "${startup[@]}" info "${flags[@]}" bazel-bin 2>/dev/null) || fail "bazel info failed"

rm -rf -- "$output"
mkdir -p -- "$output/bin" "$output/lib" "$output/bench"

# //a/b:c -> a/b/c
path_of() {
  local label=${1#//}
  printf '%s\n' "${label/://}"
}

for label in "${benchmarks[@]}"; do
  cp -- "$bin/$(path_of "$label")" "$output/bin/"
done
for label in "${tests[@]}"; do
  name=$(path_of "$label")
  cp -- "$bin/$name" "$output/bin/${name//\//_}"
  printf '%s\n' "${name//\//_}"
done >"$output/test_programs"
chmod u+w "$output"/bin/*
strip -s "$output"/bin/*

# CUDA's own libraries come from the host; so do those of every Linux that runs them, and OpenSSL's (libzip names it for
# encrypted archives, which nobody reads here), which a host with Python has.
readonly cuda='^lib(cu|nv|nccl)[A-Za-z_]*\.so'
readonly system='^(ld-linux.*|lib(c|m|dl|rt|pthread|resolv|gcc_s|stdc\+\+|crypto))\.so'
: >"$output/needed"
for program in "$output"/bin/*; do
  resolved=$(ldd "$program") || fail "ldd cannot read $program"
  while read -r name _ file _; do
    name=${name##*/}
    if [[ $name =~ $cuda ]]; then
      readelf -d "$program" | grep -q -F "[$name]" && printf '%s\n' "$name" >>"$output/needed"
    elif [[ ! $name =~ $system && $name != linux-vdso* ]]; then
      [[ -r $file ]] || fail "$program needs $name, which is not here"
      cp -L -- "$file" "$output/lib/$name"
    fi
  done <<<"$resolved"
done
{
  sort -u "$output/needed" | sed 's/^/needed /'
  # cuDNN opens it by name to compile some of its attention kernels.
  printf 'optional libnvrtc.so.%s\n' "$("${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p')"
} >"$output/cuda_libraries"
rm "$output/needed"

for path in "${data[@]}"; do
  mkdir -p -- "$output/$path"
  git ls-files -z -- "$path" | grep -z -v -E '/BUILD$|\.py$' | xargs -0 cp --parents -t "$output" --
done
if ((${#scripts[@]} > 0)); then cp -- "${scripts[@]}" "$output/bench/"; fi
if ((${#tests[@]} > 0)); then cp -- tools/gpu/run_gpu_tests.sh "$output/"; fi
cp -- tools/gpu/with_cuda "$output/"
git rev-parse HEAD >"$output/commit"

size=$(du -sb -- "$output" | cut -f 1)
printf 'pack_gpu: %s: %d.%d MB\n' "$output" $((size / 1000000)) $((size % 1000000 / 100000))
((size < limit_mb * 1000000)) || fail "the pack is larger than $limit_mb MB: $(du -ab "$output" | sort -rn | sed -n 2,6p)"
