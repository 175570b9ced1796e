"""Everything outside this repository that a build reads, found on the machine: no build needs a network."""

load("//bazel:cuda_configure.bzl", "cuda_configure")
load("//bazel:cudnn_frontend.bzl", "cudnn_frontend")
load("//bazel:host_tools.bzl", "host_tools")
load("//bazel:offline.bzl", "offline_rules")
load("//bazel:system_library.bzl", "system_library")

def _library(name, package, links, root = None, link_with = {}):
    system_library(
        name = name,
        build_file = "//bazel/third_party:%s.BUILD" % name,
        link_with = link_with,
        links = links,
        package = package,
        root = root or name.upper() + "_ROOT",
    )

def _same(paths):
    return {path: path for path in paths}

def machine_repositories():
    """Declares the libraries and tools of this machine, in WORKSPACE and bzlmod mode alike."""
    cuda_configure(name = "cuda")
    cudnn_frontend(name = "cudnn_frontend")
    host_tools(name = "host_tools")
    _library("cli11", "libcli11-dev", _same(["include/CLI"]))
    _library("eigen", "libeigen3-dev", {
        "include/Eigen": "include/eigen3/Eigen",
        "include/unsupported": "include/eigen3/unsupported",
    })
    _library("fmt", "libfmt-dev", _same(["include/fmt"]))
    _library("google_benchmark", "libbenchmark-dev", _same(["include/benchmark"]), "BENCHMARK_ROOT")
    _library("googletest", "googletest", {
        "googlemock": "src/googletest/googlemock",
        "googletest": "src/googletest/googletest",
    })
    _library("libzip", "libzip-dev", _same(["include/zip.h"]))
    _library("onednn", "libdnnl-dev", _same([
        "include/dnnl.h",
        "include/dnnl.hpp",
        "include/oneapi",
    ]))
    _library("rapidjson", "rapidjson-dev", _same(["include/rapidjson"]))
    _library(
        "sentencepiece",
        "libsentencepiece-dev",
        _same(["include/sentencepiece_processor.h"]),
        # Its newer releases' Status is absl's.
        link_with = {"absl/status/status.h": "-labsl_status"},
    )

def te_dependencies():
    """Declares every external repository of a WORKSPACE build."""
    offline_rules()
    machine_repositories()
