"""operation_test: the test of an operation, built once for each backend."""

load("//bazel:cuda_only.bzl", "CUDA_ONLY")
load("@rules_cc//cc:cc_library.bzl", "cc_library")
load("@rules_cc//cc:cc_test.bzl", "cc_test")

_SHARED = [
    "//te_kernels/testing",
    "//te_kernels/testing:host",
]

def operation_test(name, deps, cpu_deps = [], cuda_deps = [], srcs = None, size = "small"):
    """Declares `name`, the test on the CPU, and the library `name`_cuda that //tests:cuda_tests links.

    Args:
      name: the test's name; its source is name.cc.
      deps: of both.
      cpu_deps: what only the CPU's test needs (library state).
      cuda_deps: the operation's CUDA code.
      srcs: other sources than name.cc.
      size: of the CPU's test.
    """
    srcs = srcs or [name + ".cc"]
    cc_test(
        name = name,
        size = size,
        srcs = srcs,
        deps = deps + cpu_deps + _SHARED + [
            "//te_kernels/testing:test_device",
            "@googletest//:gtest_main",
        ],
    )
    cc_library(
        name = name + "_cuda",
        testonly = True,
        srcs = srcs,
        local_defines = ["TE_TEST_CUDA"],
        target_compatible_with = CUDA_ONLY,
        visibility = ["//te_kernels:__pkg__"],
        deps = deps + cuda_deps + _SHARED + [
            "//te_kernels/testing:test_cuda_device",
            "@googletest//:gtest",
        ],
        alwayslink = True,
    )
