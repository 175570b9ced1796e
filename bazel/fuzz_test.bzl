"""fuzz_test: a libFuzzer target that is also an ordinary test."""

load("@rules_cc//cc:cc_binary.bzl", "cc_binary")
load("@rules_cc//cc:cc_test.bzl", "cc_test")

def fuzz_test(name, deps, srcs = None, corpus = None, copts = [], size = "small"):
    """Declares `name`, a test that replays the corpus and changed inputs, and the program that tools/fuzz builds.

    The program's name is `name` without "_test". Its corpus stands in testdata/PROGRAM/, its dictionary, if it has
    one, in testdata/PROGRAM.dict.

    Args:
      name: ends in _fuzz_test.
      deps: the readers.
      srcs: one file with a TE_FUZZ_TARGET (tests/fuzz/fuzzing.h); PROGRAM.cc when absent.
      corpus: the inputs; all of testdata/PROGRAM/ when absent.
      copts: of both.
      size: of the test.
    """
    if not name.endswith("_fuzz_test"):
        fail("fuzz_test: the name is %s; expected one that ends in _fuzz_test" % name)
    program = name[:-len("_test")]
    corpus = corpus or native.glob(["testdata/%s/*" % program])
    if not corpus:
        fail("fuzz_test %s: there is no corpus in testdata/%s" % (name, program))
    srcs = srcs or [program + ".cc"]
    deps = deps + ["//tests/fuzz:fuzzing"]
    cc_test(
        name = name,
        size = size,
        srcs = srcs,
        args = ["$(rootpath %s)" % file for file in corpus],
        copts = copts,
        data = corpus,
        deps = deps + ["//tests/fuzz:replay_main"],
    )

    # Only clang knows -fsanitize=fuzzer, so that nothing but tools/fuzz builds this.
    cc_binary(
        name = program,
        testonly = True,
        srcs = srcs,
        copts = copts,
        linkopts = ["-fsanitize=fuzzer"],
        tags = [
            "fuzz",
            "manual",
        ],
        deps = deps,
    )
