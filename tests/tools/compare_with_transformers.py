#!/usr/bin/env python3
"""Proves on a checkpoint that te and Hugging Face transformers compute the same, after te has trained it.

usage: compare_with_transformers.py TE CHECKPOINT [DATA]      needs torch, transformers, safetensors

1. te finetune trains CHECKPOINT for three steps (on DATA, or on random tokens) and writes it.
2. transformers loads what te wrote (strictly: no tensor missing, none left over) and computes logits, loss and gradients
   of a padded batch in float32; te trace computes them from the same directory on both paths.
3. They must agree within 2e-5 of each tensor's norm; with one weight disturbed they must not.
Exit code 0 when they do.
"""
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlamaForCausalLM

TOLERANCE = 2e-5  # float32's epsilon 6e-8 times the square root of the longest sum times the operations in a row


def te(program, *arguments):
    subprocess.run([program, *arguments], check=True, stdout=subprocess.DEVNULL)


def batch(vocab_size):
    torch.manual_seed(0)
    ids = torch.randint(3, vocab_size, (3, 40))
    mask = torch.ones_like(ids)
    mask[1, 29:] = 0
    mask[2, 35:] = 0
    labels = ids.clone()
    labels[mask == 0] = -100
    labels[0, :7] = -100
    return dict(input_ids=ids, labels=labels, attention_mask=mask)


def reference(directory, inputs):
    model, info = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager",
                                                   output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        left = [k for k in info[kind] if not (k == "lm_head.weight" and model.config.tie_word_embeddings)]
        assert not left, (kind, left)
    out = model(**inputs, use_cache=False)
    out.loss.backward()
    tensors = {"logits": out.logits.detach(), "loss": out.loss.detach().reshape(1)}
    tensors.update({f"grad.{n}": p.grad for n, p in model.named_parameters()})
    return tensors


def worst(expected, actual, mask):
    assert set(actual) == set(expected), set(actual) ^ set(expected)
    result = (0.0, "")
    for name, want in expected.items():
        got = actual[name]
        if name == "logits":
            want, got = want[mask == 1], got[mask == 1]
        error = ((want.double() - got.double()).norm() / want.double().norm()).item()
        result = max(result, (error, name))
    return result


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    program, checkpoint = os.path.abspath(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as folder:
        inputs = batch(AutoConfig.from_pretrained(checkpoint).vocab_size)
        save_file(inputs, f"{folder}/in.safetensors")
        data = sys.argv[3] if len(sys.argv) == 4 else f"{folder}/in.safetensors"
        te(program, "finetune", "--model", checkpoint, "--data", data, "--output", f"{folder}/tuned", "--steps", "3",
           "--warmup-steps", "0", "--learning-rate", "1e-3", "--batch-size", "3", "--precision", "fp32")
        expected = reference(f"{folder}/tuned", inputs)
        failed = False
        for path in ("te", "hf"):
            te(program, "trace", "--model", f"{folder}/tuned", "--input", f"{folder}/in.safetensors", "--output",
               f"{folder}/out.safetensors", "--gradients", "--path", path)
            error, name = worst(expected, load_file(f"{folder}/out.safetensors"), inputs["attention_mask"])
            print(f"{checkpoint} path {path}: {len(expected)} tensors, largest difference {error:.2e} ({name})")
            failed |= not error < TOLERANCE
        disturbed = dict(expected)
        disturbed["logits"] = expected["logits"] * (1 + 10 * TOLERANCE)
        failed |= worst(disturbed, load_file(f"{folder}/out.safetensors"), inputs["attention_mask"])[0] < TOLERANCE
    sys.exit(1 if failed else 0)


main()
