"""@cudnn_frontend: the headers of NVIDIA's cudnn-frontend, which PyPI's nvidia-cudnn-frontend carries."""

_BUILD = """load("@rules_cc//cc:cc_library.bzl", "cc_library")

cc_library(
    name = "cudnn_frontend",
    hdrs = glob(["include/**"], allow_empty = True),
    # Its JSON serialization is a fifth of the compile time and unused.
    defines = ["CUDNN_FRONTEND_SKIP_JSON_LIB"],
    includes = ["include"],
    visibility = ["//visibility:public"],
)
"""

def _cudnn_frontend_impl(rctx):
    root = rctx.os.environ.get("CUDNN_FRONTEND_ROOT", "")
    own = str(rctx.path(Label("//:WORKSPACE")).dirname) + "/.deps/cudnn_frontend"
    for prefix in [root] if root else [own, "/usr", "/usr/local"]:
        if rctx.path(prefix + "/include/cudnn_frontend.h").exists:
            rctx.symlink(prefix + "/include/cudnn_frontend.h", "include/cudnn_frontend.h")
            for entry in rctx.path(prefix + "/include").readdir():
                if entry.basename.startswith("cudnn_frontend") and entry.basename != "cudnn_frontend.h":
                    rctx.symlink(entry, "include/" + entry.basename)
                elif entry.basename == "cudnn_backend_base.h":
                    rctx.symlink(entry, "include/" + entry.basename)
            rctx.file("BUILD.bazel", _BUILD)
            return

    # A build without CUDA never includes it; one with CUDA says what is missing by name.
    rctx.file("include/cudnn_frontend.h", "#error \"no cudnn_frontend.h: run ./te setup, or set CUDNN_FRONTEND_ROOT\"\n")
    rctx.file("BUILD.bazel", _BUILD)

cudnn_frontend = repository_rule(
    implementation = _cudnn_frontend_impl,
    configure = True,
    environ = ["CUDNN_FRONTEND_ROOT"],
    local = True,
)
