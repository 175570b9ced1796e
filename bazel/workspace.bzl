"""Everything WORKSPACE needs, resolvable without a network."""

load("//bazel:cuda_configure.bzl", "cuda_configure")
load("//bazel:host_tools.bzl", "host_tools")
load("//bazel:offline.bzl", "offline_rules")
load("//bazel:system_library.bzl", "system_library")

def te_dependencies():
    """Declares every external repository."""
    offline_rules()
    cuda_configure(name = "cuda")
    host_tools(name = "host_tools")
    system_library(
        name = "eigen",
        build_file = "//bazel/third_party:eigen.BUILD",
        env = "EIGEN_ROOT",
        links = {"include/Eigen": "include/eigen3/Eigen", "include/unsupported": "include/eigen3/unsupported"},
        hint = "libeigen3-dev",
    )
    system_library(
        name = "rapidjson",
        build_file = "//bazel/third_party:rapidjson.BUILD",
        env = "RAPIDJSON_ROOT",
        links = {"include/rapidjson": "include/rapidjson"},
        hint = "rapidjson-dev",
    )
    system_library(
        name = "googletest",
        build_file = "//bazel/third_party:googletest.BUILD",
        env = "GOOGLETEST_SRC",
        links = {"googletest": "src/googletest/googletest", "googlemock": "src/googletest/googlemock"},
        hint = "googletest",
    )
    system_library(
        name = "google_benchmark",
        build_file = "//bazel/third_party:benchmark.BUILD",
        env = "BENCHMARK_ROOT",
        links = {"include/benchmark": "include/benchmark"},
        hint = "libbenchmark-dev",
    )
    system_library(
        name = "fmt",
        build_file = "//bazel/third_party:fmt.BUILD",
        env = "FMT_ROOT",
        links = {"include/fmt": "include/fmt"},
        hint = "libfmt-dev",
    )
    system_library(
        name = "onednn",
        build_file = "//bazel/third_party:onednn.BUILD",
        env = "ONEDNN_ROOT",
        links = {
            "include/dnnl.h": "include/dnnl.h",
            "include/dnnl.hpp": "include/dnnl.hpp",
            "include/oneapi": "include/oneapi",
        },
        hint = "libdnnl-dev",
    )
    system_library(
        name = "cli11",
        build_file = "//bazel/third_party:cli11.BUILD",
        env = "CLI11_ROOT",
        links = {"include/CLI": "include/CLI"},
        hint = "libcli11-dev",
    )
    system_library(
        name = "libzip",
        build_file = "//bazel/third_party:libzip.BUILD",
        env = "LIBZIP_ROOT",
        links = {"include/zip.h": "include/zip.h"},
        hint = "libzip-dev",
    )
    system_library(
        name = "sentencepiece",
        build_file = "//bazel/third_party:sentencepiece.BUILD",
        env = "SENTENCEPIECE_ROOT",
        links = {"include/sentencepiece_processor.h": "include/sentencepiece_processor.h"},
        hint = "libsentencepiece-dev",
    )
