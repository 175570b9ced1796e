#!/usr/bin/env python3
"""Trains one Llama of 134M parameters twice from the same weights over the same batches in the same order: with Hugging
Face in PyTorch, and with te. The two loss curves must be the same within 0.5%.

usage: loss_curve.py [--output bench/results]       needs torch, transformers and safetensors
In a pack (tools/pack_gpu.sh) it finds bin/te by itself; elsewhere: --te 'PROGRAM...'.

Both in BF16 with BF16 moments, fused AdamW, rounding to nearest, 20 steps of warm-up, then a constant learning rate. What is
compared are the curves' exponential means (of 0.9, corrected for their start): single steps differ by what BF16's rounding
leaves. Writes loss_curve.json and loss_curve.svg. Exit code 1 when the curves differ or the loss does not fall.
"""
import argparse
import itertools
import json
import pathlib
import random
import shlex
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import save_file

from curves import exponential_mean, plot
from huggingface_step import CONFIGS, llama_config

HERE = pathlib.Path(__file__).resolve().parent
LIMIT = 0.005
LEARNING_RATE = 6e-4
WARMUP = 20


def default_te():
    if (HERE.parent / "with_cuda").exists():
        return [str(HERE.parent / "with_cuda"), str(HERE.parent / "bin" / "te")]
    return [str(HERE.parent / "te")]


def token_rows(rows, length):
    """Text-like tokens: half are drawn by frequency (Zipf's law, 2000 words), half follow from the token before."""
    rng = random.Random(0)
    words = 2000
    frequency = list(itertools.accumulate(1 / (rank + 3) for rank in range(words)))
    followers = [rng.sample(range(words), 4) for _ in range(words)]
    out = []
    for _ in range(rows):
        row = [rng.randrange(words)]
        while len(row) < length:
            if rng.random() < 0.5:
                row.append(rng.choices(range(words), cum_weights=frequency)[0])
            else:
                row.append(rng.choices(followers[row[-1]], weights=(8, 4, 2, 1))[0])
        out.append(row)
    return torch.tensor(out, dtype=torch.int32)


def train_huggingface(folder, ids, options):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa").to(options.device)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / WARMUP))
    losses = []
    for batch in ids.split(options.batch):
        batch = batch.to(options.device, torch.int64)
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    return [float(loss) for loss in losses]


def train_te(folder, data, options):
    log = folder / "run.jsonl"
    subprocess.run(
        [*options.te, "finetune", "--device", options.device, "--model", str(folder), "--data", str(data),
         "--output", str(folder / "out"), "--log", str(log), "--steps", str(options.steps),
         "--batch-size", str(options.batch), "--max-seq-length", str(options.length), "--no-shuffle",
         "--learning-rate", str(LEARNING_RATE), "--warmup-steps", str(WARMUP), "--lr-scheduler", "constant",
         "--precision", "bf16", "--moments", "bf16", "--rounding", "nearest", "--path", options.path],
        check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default=str(HERE / "results"))
    parser.add_argument("--te", type=shlex.split, default=default_te(), help="our program, with what starts it")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--path", choices=["te", "hf"], default="te")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--layers", type=int, default=CONFIGS["110m"]["num_hidden_layers"])
    options = parser.parse_args()

    ids = token_rows(options.steps * options.batch, options.length)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        config = llama_config("110m")
        config.num_hidden_layers = options.layers
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        parameters = sum(p.numel() for p in model.parameters())
        model.save_pretrained(folder)
        save_file({"input_ids": ids}, folder / "data.safetensors")
        theirs = train_huggingface(folder, ids, options)
        ours = train_te(folder, folder / "data.safetensors", options)
    if len(ours) != len(theirs):
        sys.exit(f"loss_curve: te logged {len(ours)} losses, Hugging Face {len(theirs)}")

    their_mean, our_mean = exponential_mean(theirs), exponential_mean(ours)
    differences = [abs(a - b) / a for a, b in zip(their_mean, our_mean)]
    fell = ours[-1] < 0.9 * ours[0] or options.steps < 100  # a short run only tries the script
    result = {
        "parameters": parameters, "steps": options.steps, "tokens_a_step": options.batch * options.length,
        "learning_rate": LEARNING_RATE, "path": options.path, "torch": torch.__version__,
        "transformers": transformers.__version__,
        "card": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "largest_relative_difference": max(differences), "limit": LIMIT,
        "final_loss": {"huggingface": their_mean[-1], "te": our_mean[-1]},
        "losses": {"huggingface": theirs, "te": ours},
    }
    output = pathlib.Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "loss_curve.json").write_text(json.dumps(result, indent=1) + "\n")
    (output / "loss_curve.svg").write_text(plot(
        {"Hugging Face, BF16": theirs, "te, BF16": ours}, [("#d95f02", 4, 0.45), ("#1b4f9c", 1.2, 1)],
        f"Loss of a Llama of {parameters / 1e6:.0f}M parameters, same weights, same batches"))
    good = max(differences) <= LIMIT and fell
    print(f"loss {ours[0]:.4f} -> {ours[-1]:.4f} (Hugging Face {theirs[0]:.4f} -> {theirs[-1]:.4f}); the means differ by at "
          f"most {max(differences):.3%}, limit {LIMIT:.1%}: {'same curve' if good else 'FAILED'}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
