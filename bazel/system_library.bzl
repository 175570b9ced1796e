"""A repository made of symlinks into an installed library.

Only what is named is linked: the sandbox then catches a header that a target uses without depending on its library.
"""

_PREFIXES = [
    "/usr",
    "/usr/local",
]

# Every variable that some system_library reads: a repository rule must name them beforehand.
_ROOTS = [
    "BENCHMARK_ROOT",
    "CLI11_ROOT",
    "EIGEN_ROOT",
    "FMT_ROOT",
    "GOOGLETEST_ROOT",
    "LIBZIP_ROOT",
    "ONEDNN_ROOT",
    "RAPIDJSON_ROOT",
    "SENTENCEPIECE_ROOT",
]

def _system_library_impl(rctx):
    root = rctx.os.environ.get(rctx.attr.root, "")
    prefixes = [root] if root else _PREFIXES
    for link, target in rctx.attr.links.items():
        found = None
        for prefix in prefixes:
            path = rctx.path(prefix + "/" + target)
            if found == None and path.exists:
                found = path
        if found == None:
            fail("@%s: no %s under %s: install Debian's %s or set %s" % (
                rctx.name,
                target,
                " or ".join(prefixes),
                rctx.attr.package,
                rctx.attr.root,
            ))
        rctx.symlink(found, link)
    text = "".join([rctx.read(link) for link in rctx.attr.links if link.endswith(".h")])
    directory = root + "/lib"
    rctx.file("root.bzl", "LINK_DIRECTORY = %s\nLINK_WITH = %s\n" % (
        ["-L" + directory, "-Wl,-rpath," + directory] if root else [],
        [linkopt for header, linkopt in rctx.attr.link_with.items() if "#include <%s>" % header in text],
    ))
    rctx.symlink(rctx.attr.build_file, "BUILD.bazel")

system_library = repository_rule(
    implementation = _system_library_impl,
    attrs = {
        "build_file": attr.label(
            doc = "The repository's BUILD file. It may load linkopts from :root.bzl: LINK_DIRECTORY (to find its lib/) and LINK_WITH.",
            allow_single_file = True,
            mandatory = True,
        ),
        "link_with": attr.string_dict(
            doc = "Header -> linkopt that this release needs if its own headers include that header.",
        ),
        "links": attr.string_dict(
            doc = "Path in the repository -> path below the prefix.",
            mandatory = True,
        ),
        "package": attr.string(
            doc = "Debian's package, for the error message.",
            mandatory = True,
        ),
        "root": attr.string(
            doc = "Environment variable that names another prefix.",
            values = _ROOTS,
            mandatory = True,
        ),
    },
    configure = True,
    environ = _ROOTS,
    local = True,
)
