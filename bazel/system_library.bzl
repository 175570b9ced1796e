"""A repository made of symlinks into an installed library."""

_PREFIXES = ["/usr", "/usr/local", "/opt"]
_LIBDIRS = ["lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64", "lib"]

def _find(rctx, prefixes, rel):
    for p in prefixes:
        path = rctx.path(p + "/" + rel)
        if path.exists:
            return path
    return None

def _system_library_impl(rctx):
    root = rctx.os.environ.get(rctx.attr.env, "")
    prefixes = [root] if root else _PREFIXES
    missing = []
    for dst, src in rctx.attr.links.items():
        path = _find(rctx, prefixes, src)
        if path:
            rctx.symlink(path, dst)
        else:
            missing.append(src)
    for lib in rctx.attr.libs:
        path = None
        for d in _LIBDIRS:
            path = path or _find(rctx, prefixes, d + "/" + lib)
        if path:
            rctx.symlink(path, "lib/" + lib)
        else:
            missing.append(lib)
    if missing:
        fail("@%s: %s not found under %s: install %s or set %s" % (
            rctx.name,
            ", ".join(missing),
            " ".join(prefixes),
            rctx.attr.hint,
            rctx.attr.env,
        ))
    rctx.symlink(rctx.attr.build_file, "BUILD.bazel")

_rule = repository_rule(
    implementation = _system_library_impl,
    local = True,
    configure = True,
    attrs = {
        "build_file": attr.label(mandatory = True, allow_single_file = True),
        "env": attr.string(mandatory = True),
        "links": attr.string_dict(),
        "libs": attr.string_list(),
        "hint": attr.string(),
    },
    environ = ["EIGEN_ROOT", "RAPIDJSON_ROOT", "GOOGLETEST_SRC", "BENCHMARK_ROOT", "FMT_ROOT", "ONEDNN_ROOT", "CLI11_ROOT", "LIBZIP_ROOT", "SENTENCEPIECE_ROOT"],
)

def system_library(**kwargs):
    _rule(**kwargs)
