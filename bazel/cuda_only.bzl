"""For target_compatible_with: targets that are skipped where no CUDA toolkit is found (or with --config=cpu)."""

CUDA_ONLY = select({
    "//bazel:with_cuda": [],
    "//conditions:default": ["//bazel:incompatible"],
})
