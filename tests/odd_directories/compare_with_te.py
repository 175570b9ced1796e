#!/usr/bin/env python3
"""Holds te to what transformers does with the directories of make_directories.py: compare_with_te.py TE [NAME...]

Where transformers loads the weights, te loads them with equal logits, or refuses in one line that says why (the case names
it). Where transformers refuses, or would draw tensors at random, te refuses and says why. `te inspect` comes to the same.
"""

import json
import os
import re
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import make_directories as made  # noqa: E402

with open(os.path.join(HERE, "hugging_face.json"), encoding="utf-8") as f:
    HUGGING_FACE = json.load(f)


def tolerance(logits):
    """Rounding to 24 bits at each of the additions on the way to a logit, relative to the largest one."""
    c = made.CONFIG
    a_layer = 2 * c["hidden_size"] + c["hidden_size"] // 2 + c["intermediate_size"] + len(made.TOKENS)
    additions = c["num_hidden_layers"] * a_layer + 2 * c["hidden_size"]
    return 2.0 ** -24 * additions * max(abs(x) for x in logits)


def equal(a, b):
    return len(a) == len(b) and max(abs(x - y) for x, y in zip(a, b)) <= tolerance(b)


def read_logits(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    begin, end = header["logits"]["data_offsets"]
    return struct.unpack("<%df" % ((end - begin) // 4), data[begin:end])


def run(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)


class Comparison:
    def __init__(self, te, folder):
        self.te, self.folder, self.failures = te, folder, []
        self.input = os.path.join(folder, "input.safetensors")
        with open(self.input, "wb") as f:
            data = struct.pack("<%dq" % len(made.TOKENS), *made.TOKENS)
            text = json.dumps({"input_ids": {"dtype": "I64", "shape": [1, len(made.TOKENS)],
                                             "data_offsets": [0, len(data)]}}).encode()
            f.write(struct.pack("<Q", len(text)) + text + data)

    def fail(self, name, why, result):
        self.failures.append(name)
        print("FAILED %s: %s\n  code %d; stderr: %s" % (name, why, result.returncode, result.stderr.strip()[:600]))

    def check(self, name, case):
        directory = os.path.join(self.folder, name)
        made.write(directory, case.files)
        answer = HUGGING_FACE["directories"][name]
        output = os.path.join(self.folder, name + ".safetensors")
        result = run(self.te, "trace", "--model", directory, *case.flags, "--precision", "fp32", "--input", self.input,
                     "--output", output)
        inspected = run(self.te, "inspect", "--model", directory, *case.flags)
        loads = answer["loads"] and case.te == made.EQUAL or case.te == made.LOADS
        if loads:
            logits = HUGGING_FACE["logits"][answer.get("logits", HUGGING_FACE["directories"]["plain"]["logits"])]
            if result.returncode != 0:
                self.fail(name, "te refuses what transformers loads", result)
            elif not equal(read_logits(output), logits):
                self.fail(name, "other logits than transformers'", result)
            elif inspected.returncode != 0:
                self.fail(name, "te inspect finds a fault in what loads", inspected)
            return
        if result.returncode != 2:
            self.fail(name, "te loads what it should refuse, or fails otherwise", result)
            return
        lines = [x for x in result.stderr.splitlines() if not x.startswith("warning: ")]
        if len(lines) != 1 or not lines[0].startswith("te trace: error: "):
            self.fail(name, "expected one line that begins with 'te trace: error: '", result)
        if not case.says or not re.search(case.says, result.stderr):
            self.fail(name, "expected a message that matches %r" % case.says, result)
        if inspected.returncode != 2 or not re.search(case.says or "$^", inspected.stderr):
            self.fail(name, "te inspect does not say so", inspected)


def main():
    te, wanted = os.path.abspath(sys.argv[1]), set(sys.argv[2:])
    cases = made.cases()
    assert set(cases) == set(HUGGING_FACE["directories"]), "hugging_face.json is not of these cases: ask_hugging_face.py"
    sets, of = HUGGING_FACE["logits"], HUGGING_FACE["directories"]
    # The twin: a difference that the tolerance must not hide.
    assert not equal(sets[of["disturbed"]["logits"]], sets[of["plain"]["logits"]])
    with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as folder:
        comparison = Comparison(te, folder)
        done = [name for name in cases if not wanted or name in wanted]
        for name in done:
            comparison.check(name, cases[name])
    failed = len(set(comparison.failures))
    print("%d directories, %d as transformers or refused with the reason, %d failed" % (len(done), len(done) - failed, failed))
    sys.exit(1 if failed or not done else 0)


if __name__ == "__main__":
    main()
