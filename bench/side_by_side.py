#!/usr/bin/env python3
"""Runs our training step and Hugging Face's on the same card in one go and writes a table of both.

usage: side_by_side.py [--output bench/results] [--rows llama2-7b:8x256,llama3-8b:8x256] [--without compile]
In a pack (tools/pack_gpu.sh) it finds bin/step by itself; elsewhere: --step 'PROGRAM...'. Python needs torch and
transformers (--python names another one).

For each row, one process after the other: Hugging Face eager, Hugging Face with torch.compile, ours on the path of Hugging
Face's operations, ours on the fused path, the same with nondeterministic attention, ours with global-norm clipping, ours
with the update inside the backward pass, and ours in FP8 with delayed scaling, the same with FP8 attention, and with
current and block scaling. All train random BF16 weights with BF16 moments on random tokens, five
steps to warm up and ten timed by CUDA events. Ours load the algorithms that earlier runs of the same model and shape have
found (--choices); how many is in each line and in the JSON.
Writes side_by_side.json and side_by_side.md. Exit code 1 when a run fails or a step of ours does not teach.
"""
import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROWS = "llama2-7b:8x256,llama3-8b:8x256,llama2-7b:1x4096,llama3-8b:1x4096,llama2-7b:1x4096x16"
# What runs, in this order; ours after theirs, so that the card is warm for both.
HF_EAGER, HF_COMPILE, OURS_HF, OURS = "Hugging Face eager", "Hugging Face compile", "te, path hf", "te"
CLIPPED, IN_BACKWARD = "te, clipped", "te, update in backward"
FP8, FP8_CURRENT, FP8_BLOCK = "te, FP8 delayed", "te, FP8 current", "te, FP8 block"
FP8_DPA = "te, FP8 delayed and attention"
NONDETERMINISTIC = "te, nondeterministic"
KINDS = {"eager": HF_EAGER, "compile": HF_COMPILE, "hf": OURS_HF, "te": OURS, "nondet": NONDETERMINISTIC,
         "clip": CLIPPED, "inplace": IN_BACKWARD,
         "fp8": FP8, "dpa": FP8_DPA, "current": FP8_CURRENT, "block": FP8_BLOCK}
RECIPES = {FP8: "delayed", FP8_DPA: "delayed", FP8_CURRENT: "current", FP8_BLOCK: "block"}
NAMES = {"llama2-7b": "Llama 2 7B", "llama3-8b": "Llama 3 8B", "110m": "Llama 110M"}


def default_step():
    if (HERE.parent / "with_cuda").exists():
        return [str(HERE.parent / "with_cuda"), str(HERE.parent / "bin" / "step")]
    return [str(HERE.parent / "bazel-bin" / "bench" / "step")]


class Row:
    """model:BATCHxSEQUENCE, or model:BATCHxSEQUENCExMICRO_BATCHES."""

    def __init__(self, text):
        self.text = text
        self.model, shape = text.split(":")
        numbers = [int(number) for number in shape.split("x")]
        if self.model not in NAMES or len(numbers) not in (2, 3):
            sys.exit(f"side_by_side: row '{text}'; expected as in {ROWS}")
        self.batch, self.sequence = numbers[:2]
        self.micro_batches = numbers[2] if len(numbers) == 3 else 1

    def title(self):
        micro = f" x {self.micro_batches} micro-batches" if self.micro_batches > 1 else ""
        return f"{NAMES[self.model]} {self.batch}x{self.sequence}{micro}"


def shown(line):
    """A command without the folders of the machine that ran it."""
    text = shlex.join(line).replace(str(HERE.parent) + "/", "")
    return " ".join(os.path.basename(word) if word.startswith("/") else word for word in text.split(" "))


def choices_of(row, options):
    """A model's shape is searched for its fastest algorithms once: the runs that follow load what those before found."""
    if options.device == "cpu":
        return []
    return ["--choices", os.path.join(options.choices, f"{row.model}-{row.batch}x{row.sequence}.txt")]


def command(kind, row, options, output):
    """The command of one run, and the file that its JSON is in (None: its last line)."""
    steps = ["--steps", str(options.steps), "--warmup", str(options.warmup)]
    if kind in (HF_EAGER, HF_COMPILE):
        return [*shlex.split(options.python), str(HERE / "huggingface_step.py"), "--model", row.model,
                "--shape", f"{row.batch}x{row.sequence}", "--micro-batches", str(row.micro_batches),
                "--device", options.device, *steps, *(["--compile"] if kind == HF_COMPILE else [])], None
    precision = ["fp8", "--recipe", RECIPES[kind]] if kind in RECIPES else ["bf16"]
    if kind == FP8_DPA:
        precision.append("--fp8-dpa")
    return [*options.step, "--device", options.device, "--precision", *precision, "--model", row.model,
            "--batch-size", str(row.batch), "--sequence-length", str(row.sequence),
            "--micro-batches", str(row.micro_batches), "--path", "hf" if kind == OURS_HF else "te",
            *choices_of(row, options), *(["--max-grad-norm", "1"] if kind == CLIPPED else []),
            *(["--allow-nondeterministic"] if kind == NONDETERMINISTIC else []),
            *(["--update-in-backward"] if kind == IN_BACKWARD else []), *steps, "--json", output], output


def run(kind, row, options):
    with tempfile.TemporaryDirectory() as folder:
        line, path = command(kind, row, options, os.path.join(folder, "step.json"))
        begin = time.monotonic()
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        seconds = time.monotonic() - begin
        result = {"row": row.text, "kind": kind, "command": shown(line), "seconds": round(seconds, 1)}
        # A step that did not teach has written its figures all the same.
        try:
            text = pathlib.Path(path).read_text() if path else done.stdout.strip().splitlines()[-1]
            result |= json.loads(text)
        except (OSError, IndexError, ValueError):
            pass
        if done.returncode != 0 or "milliseconds" not in result:
            result["error"] = (done.stderr.strip().splitlines() or ["no output"])[-1][:300]
            sys.stderr.write(done.stderr[-2000:])
    taken = f"{result['milliseconds']:.1f} ms" if "milliseconds" in result else ""
    choices = result.get("settings", {}).get("choices")
    notes = f"{seconds:.0f} s" + (f"; algorithms: {choices}" if choices else "")
    print(f"{row.title():<42}{kind:<26}{taken:>10}  {result.get('error', '')} ({notes})", flush=True)
    return result


def skipped(kind, row):
    """Updates inside the backward pass need one micro-batch; the amortized step is about ours and their eager one."""
    return row.micro_batches > 1 and kind not in (HF_EAGER, OURS, FP8)


def ratio(base, run):
    ok = base and run and "error" not in base and "error" not in run
    return base["milliseconds"] / run["milliseconds"] if ok else None


def with_ratios(runs):
    """Adds how much faster each run is than Hugging Face's of the same row; than our own hf path only where that path is
    a fair stand-in for Hugging Face (within 10% of eager)."""
    by_name = {(r["row"], r["kind"]): r for r in runs}
    for r in runs:
        eager, own = by_name.get((r["row"], HF_EAGER)), by_name.get((r["row"], OURS_HF))
        r["faster_than_eager"] = ratio(eager, r)
        r["faster_than_compile"] = ratio(by_name.get((r["row"], HF_COMPILE)), r)
        fair = ratio(eager, own)
        r["faster_than_own_hf"] = ratio(own, r) if fair and abs(1 / fair - 1) <= 0.1 else None
    return runs


def versions(runs):
    out = {}
    for r in runs:
        for name in ("card", "cuda_driver", "cuda_runtime", "cublas_lt", "torch", "transformers", "cuda"):
            if name in r.get("settings", {}):
                out[name] = r["settings"][name]
        if "cudnn" in r.get("settings", {}):
            out["cudnn of torch" if r["kind"] in (HF_EAGER, HF_COMPILE) else "cudnn of te"] = r["settings"]["cudnn"]
    commit = HERE.parent / "commit"
    if commit.exists():
        out["te"] = commit.read_text().strip()[:12]
    return out


def smi():
    fields = "driver_version,power.limit,clocks.sm,clocks.mem,temperature.gpu"
    try:
        line = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], stdout=subprocess.PIPE,
                              text=True, check=True, timeout=30).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return {}
    return dict(zip(fields.split(","), (value.strip() for value in line.split(","))))


def markdown(rows, runs, facts):
    def cell(value, form):
        return form.format(value) if value is not None else ""

    lines = ["| | | ms | tokens/s | TFLOP/s | peak GiB | x Hugging Face eager | x compile | x our hf path |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        for r in (r for r in runs if r["row"] == row.text):
            if "milliseconds" not in r:
                lines.append(f"| {row.title()} | {r['kind']} | failed: {r['error']} | | | | | | |")
                continue
            name = f"**{r['kind']}**" if r["kind"] in (OURS, FP8) else r["kind"]
            note = f" ({r['error']})" if "error" in r else ""
            lines.append(
                f"| {row.title()} | {name}{note} | {r['milliseconds']:.1f} | {r['tokens_per_second']:.0f} | "
                f"{r['model_tflops_per_second']:.0f} | {r['peak_gib']:.1f} | {cell(r['faster_than_eager'], '{:.2f}')} | "
                f"{cell(r['faster_than_compile'], '{:.2f}')} | {cell(r['faster_than_own_hf'], '{:.2f}')} |")
    lines += ["", "ms: mean of the timed steps. TFLOP/s: of the model (6 x matmul weights x tokens + 3 x causal attention "
              "forward). Peak: of tensors.", "", ", ".join(f"{name} {value}" for name, value in facts.items()), ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=ROWS)
    parser.add_argument("--without", default="", help=f"kinds of run to leave out, of: {','.join(KINDS)}")
    parser.add_argument("--output", default=str(HERE / "results"))
    parser.add_argument("--step", type=shlex.split, default=default_step(), help="our program, with what starts it")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch and transformers")
    parser.add_argument("--device", default="cuda", help="cpu: to try the script")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--choices", default="", help="a folder that keeps the algorithms that our runs find, for the next "
                        "table on such a card; default: one that goes at the end")
    options = parser.parse_args()
    rows = [Row(text) for text in options.rows.split(",")]
    left_out = [kind for kind in options.without.split(",") if kind]
    if unknown := [kind for kind in left_out if kind not in KINDS]:
        parser.error(f"--without {unknown[0]}; expected some of {','.join(KINDS)}")

    runs = []
    output = pathlib.Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        options.choices = options.choices or folder
        os.makedirs(options.choices, exist_ok=True)
        for row in rows:
            for short, kind in KINDS.items():
                if short in left_out or skipped(kind, row):
                    continue
                runs.append(run(kind, row, options))
                # After each run: what has been measured stays when a later one is stopped.
                facts = versions(runs) | smi()
                results = {"versions": facts, "runs": with_ratios(runs)}
                (output / "side_by_side.json").write_text(json.dumps(results, indent=1) + "\n")
                (output / "side_by_side.md").write_text(markdown(rows, runs, facts))
    print((output / "side_by_side.md").read_text())
    sys.exit(any("error" in r for r in runs))


if __name__ == "__main__":
    main()
