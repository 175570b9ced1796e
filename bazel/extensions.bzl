"""The module extension of MODULE.bazel: a build in bzlmod mode."""

load("//bazel:workspace.bzl", "machine_repositories")

def _machine_impl(_module_ctx):
    machine_repositories()

machine = module_extension(implementation = _machine_impl)
