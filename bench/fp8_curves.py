#!/usr/bin/env python3
"""Trains one Llama of 86M parameters on real text in BF16 and in FP8 with each recipe that a Hopper card runs, for several
seeds; of one seed all start from the same weights and read the same batches in the same order. Compares the loss curves.

usage: fp8_curves.py --text /usr/share/doc [--output bench/results]      trains on the text files under a folder
       fp8_curves.py --text /usr/share/doc --make-tokens FILE            only writes the tokens, for a host without the text
       fp8_curves.py --tokens FILE [--output bench/results]              trains on them
In a pack (tools/pack_gpu.sh) it finds bin/te by itself; elsewhere: --te 'PROGRAM...'. Needs nothing but Python.

Tokens are bytes: no tokenizer stands between the text and the curve. AdamW with float32 master weights and moments, 100
steps of warm-up, then a cosine. What is compared are exponential means of 0.9 at the end, averaged over the seeds: two runs
of one seed part ways after some hundred steps and end as far from each other as two seeds do. Writes fp8_curves.json, .md
and .svg (the first seed's curves, and BF16's of the second). Exit code 1 when a recipe's average differs from BF16's by more
than 0.5%, or a loss does not fall.
"""
import argparse
import array
import gzip
import json
import pathlib
import random
import shlex
import subprocess
import sys
import tempfile

from curves import exponential_mean, plot

HERE = pathlib.Path(__file__).resolve().parent
LIMIT = 0.005
LENGTH = 256
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256, "hidden_size": 768,
    "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 12,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "initializer_range": 0.02, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}
LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ,.")
KINDS = {"BF16": ["--precision", "bf16"],
         "FP8 delayed": ["--precision", "fp8", "--recipe", "delayed"],
         "FP8 current": ["--precision", "fp8", "--recipe", "current"],
         "FP8 block": ["--precision", "fp8", "--recipe", "block"]}
STYLES = [("#888888", 5, 0.35), ("#222222", 1.2, 1), ("#d95f02", 1.2, 1), ("#1b4f9c", 1.2, 1), ("#2a8f3c", 1.2, 1)]


def default_te():
    if (HERE.parent / "with_cuda").exists():
        return [str(HERE.parent / "with_cuda"), str(HERE.parent / "bin" / "te")]
    return [str(HERE.parent / "te")]


def texts(folder):
    """The text files under a folder, in an order that does not depend on the machine's."""
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if path.suffix not in (".gz", ".txt", ".md", ".rst", ".html", "") or not path.is_file() or path.is_symlink():
            continue
        try:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            text = data.decode("ascii")
        except (OSError, EOFError, ValueError):
            continue
        if len(text) >= 4 * LENGTH and "\0" not in text:
            yield text


def make_tokens(folder, count):
    """`count` rows of LENGTH bytes: pieces of all files, shuffled."""
    rows, seen = [], set()
    for text in texts(folder):
        data = text.encode()[:100 * LENGTH]  # of long files the beginning: no one of them rules
        for begin in range(0, len(data) - LENGTH, LENGTH):
            row = data[begin:begin + LENGTH]
            letters = sum(byte in LETTERS for byte in row)  # prose, not tables
            if letters >= 0.8 * LENGTH and row not in seen:  # licences come again and again
                seen.add(row)
                rows.append(row)
    if len(rows) < count:
        sys.exit(f"fp8_curves: the text under {folder} gives {len(rows)} rows; expected {count} or more")
    random.Random(0).shuffle(rows)
    return rows[:count]


def write_tokens(rows, path):
    header = json.dumps({"input_ids": {"dtype": "I32", "shape": [len(rows), LENGTH],
                                       "data_offsets": [0, 4 * LENGTH * len(rows)]}}).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for row in rows:
            array.array("i", list(row)).tofile(file)


def train(options, data, seed, precision):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text(json.dumps(CONFIG))
        log = folder / "log.jsonl"
        line = [*options.te, "finetune", "--device", options.device, "--init-from-config", "--model", str(folder / "model"),
                "--data", str(data), "--output", str(folder / "out"), "--log", str(log), "--steps", str(options.steps),
                "--batch-size", str(options.batch), "--max-seq-length", str(LENGTH), "--no-shuffle", "--seed", str(seed),
                "--learning-rate", "6e-4", "--warmup-steps", "100", "--lr-scheduler", "cosine", "--max-grad-norm", "1",
                "--weight-decay", "0.1", "--beta2", "0.95", "--master-weights", "fp32", "--moments", "fp32",
                "--rounding", "nearest", *precision]
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"fp8_curves: {' '.join(precision)}: {done.stderr.strip()[-500:]}")
        lines = [json.loads(text) for text in log.read_text().splitlines()]
        return [entry["loss"] for entry in lines if "loss" in entry]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text")
    source.add_argument("--tokens")
    parser.add_argument("--make-tokens", metavar="FILE")
    parser.add_argument("--output", default=str(HERE / "results"))
    parser.add_argument("--te", type=shlex.split, default=default_te(), help="our program, with what starts it")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        data = options.tokens
        if options.text:
            data = options.make_tokens or str(pathlib.Path(name) / "tokens.safetensors")
            write_tokens(make_tokens(options.text, options.steps * options.batch), data)
        if options.make_tokens:
            return
        curves = {}
        for seed in range(1, options.seeds + 1):
            for title, precision in KINDS.items():
                losses = train(options, data, seed, precision)
                curves[title, seed] = losses
                print(f"seed {seed}, {title:<12} loss {losses[0]:.4f} -> {exponential_mean(losses)[-1]:.4f} (mean)", flush=True)

    seeds = range(1, options.seeds + 1)
    means = {key: exponential_mean(losses) for key, losses in curves.items()}
    final = {title: [means[title, seed][-1] for seed in seeds] for title in KINDS}
    average = {title: sum(values) / len(values) for title, values in final.items()}
    difference = {title: average[title] / average["BF16"] - 1 for title in KINDS}
    fell = all(losses[-1] < 0.9 * losses[0] for losses in curves.values()) or options.steps < 100
    lines = ["| | " + " | ".join(f"seed {seed}" for seed in seeds) + " | average | of BF16's |", "|---" * (len(seeds) + 3) + "|"]
    for title in KINDS:
        lines.append(f"| {title} | " + " | ".join(f"{value:.4f}" for value in final[title]) +
                     f" | {average[title]:.4f} | {difference[title]:+.2%} |")
    output = pathlib.Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "fp8_curves.json").write_text(json.dumps({
        "config": CONFIG, "steps": options.steps, "tokens_a_step": options.batch * LENGTH, "limit": LIMIT,
        "final_mean": final, "average": average, "relative_difference": difference,
        "means_every_20_steps": {f"{title}, seed {seed}": [round(value, 4) for value in means[title, seed][19::20]]
                                 for title, seed in means}}, indent=1) + "\n")
    (output / "fp8_curves.md").write_text("\n".join(lines) + "\n")
    shown = {"BF16, another seed": means["BF16", min(2, options.seeds)]} | {title: means[title, 1] for title in KINDS}
    every = max(1, options.steps // 400)
    (output / "fp8_curves.svg").write_text(plot({title: mean[::every] for title, mean in shown.items()}, STYLES,
                                                f"Exponential mean of the loss on real text (bytes), every {every} steps"))
    good = fell and all(abs(value) <= LIMIT for value in difference.values())
    print("\n".join([*lines, "same losses within 0.5%" if good else "FAILED"]))
    sys.exit(not good)


if __name__ == "__main__":
    main()
