#!/usr/bin/env python3
"""Where FP8 pays: one step of four layers in BF16 and in FP8 (delayed scaling), for hidden sizes from 512 to 8192.

usage: fp8_hidden_sizes.py [--output bench/results] [--shape 8x256]
In a pack (tools/pack_gpu.sh) it finds bin/step by itself; elsewhere: --step 'PROGRAM...'. Needs nothing but Python.

Our own step, optimizer included, on the same card in turns; the vocabulary is 32000. Writes fp8_hidden_sizes.json and .md.
"""
import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SIZES = (512, 1024, 2048, 3072, 4096, 5120, 8192)


def default_step():
    if (HERE.parent / "with_cuda").exists():
        return [str(HERE.parent / "with_cuda"), str(HERE.parent / "bin" / "step")]
    return [str(HERE.parent / "bazel-bin" / "bench" / "step")]


def milliseconds(options, size, precision):
    batch, sequence = options.shape.split("x")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "step.json"
        line = [*options.step, "--device", options.device, "--model", "llama2-7b", "--layers", "4", "--hidden-size",
                str(size), "--batch-size", batch, "--sequence-length", sequence, "--precision", precision, "--check-steps",
                "0", "--json", str(path)]
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"fp8_hidden_sizes: {precision} at {size}: {done.stderr.strip()[-500:]}")
        return json.loads(path.read_text())["milliseconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default=str(HERE / "results"))
    parser.add_argument("--shape", default="8x256")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--step", type=shlex.split, default=default_step(), help="our program, with what starts it")
    options = parser.parse_args()
    rows = []
    lines = ["| hidden size | BF16, ms | FP8, ms | FP8 is faster by |", "|---|---|---|---|"]
    for size in SIZES:
        bf16, fp8 = milliseconds(options, size, "bf16"), milliseconds(options, size, "fp8")
        rows.append({"hidden_size": size, "bf16_ms": bf16, "fp8_ms": fp8, "ratio": bf16 / fp8})
        lines.append(f"| {size} | {bf16:.2f} | {fp8:.2f} | {bf16 / fp8:.2f} |")
        print(lines[-1], flush=True)
    output = pathlib.Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "fp8_hidden_sizes.json").write_text(json.dumps({"shape": options.shape, "rows": rows}, indent=1) + "\n")
    (output / "fp8_hidden_sizes.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
