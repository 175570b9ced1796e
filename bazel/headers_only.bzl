"""headers_only: the headers of libraries without their code."""

def _headers_only_impl(ctx):
    return [cc_common.merge_cc_infos(cc_infos = [
        CcInfo(compilation_context = dep[CcInfo].compilation_context)
        for dep in ctx.attr.deps
    ])]

# For a header of types that names the types of many libraries: what depends on it compiles and links none of them.
headers_only = rule(
    implementation = _headers_only_impl,
    attrs = {"deps": attr.label_list(providers = [CcInfo])},
    provides = [CcInfo],
)
