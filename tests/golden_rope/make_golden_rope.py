#!/usr/bin/env python3
"""Writes tiny Llama checkpoints with the rope types, biases and head shapes that ../golden has not, and what Hugging Face
computes from them: the files of ../golden/make_golden.py, without training and generation.

usage: make_golden_rope.py OUT_DIR              needs torch, transformers, safetensors; runs on the CPU
"""
import json, os, shutil, sys
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

BASE = dict(hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=48, max_position_embeddings=64, rms_norm_eps=1e-5)
CASES = {
    # name: (differences from BASE, rope_theta, rope_scaling, spelling of the rope in config.json)
    "linear": (dict(), 10000.0, dict(rope_type="linear", factor=4.0), "type"),
    "dynamic-within": (dict(), 10000.0, dict(rope_type="dynamic", factor=2.0), "rope_type"),
    "dynamic-beyond": (dict(max_position_embeddings=16), 10000.0, dict(rope_type="dynamic", factor=2.0), "rope_parameters"),
    "llama3": (dict(head_dim=20), 500000.0,
               dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                    original_max_position_embeddings=32), "rope_type"),
    "yarn": (dict(head_dim=16), 10000.0, dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16), "type"),
    "yarn-mscale": (dict(head_dim=16, max_position_embeddings=2048), 5000.0,
                    dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=256, mscale=0.7,
                         mscale_all_dim=0.4, beta_fast=8.0, beta_slow=0.5, truncate=False), "rope_type"),
    "yarn-attention-factor": (dict(head_dim=16), 10000.0,
                              dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16,
                                   attention_factor=1.3), "rope_parameters"),
    "attention-bias": (dict(attention_bias=True, num_attention_heads=3, num_key_value_heads=3), 10000.0, None, "rope_type"),
    "mlp-bias": (dict(mlp_bias=True, num_attention_heads=6, num_key_value_heads=1, head_dim=10,
                      tie_word_embeddings=True), 10000.0, None, "rope_type"),
}


def write_config(path, args, theta, scaling, spelling):
    c = dict(args, architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", torch_dtype="float32")
    if spelling == "rope_parameters":
        c["rope_parameters"] = dict(rope_theta=theta, **(scaling or dict(rope_type="default")))
    else:
        c["rope_theta"] = theta
        c["rope_scaling"] = scaling and {(spelling if k == "rope_type" else k): v for k, v in scaling.items()}
    json.dump(c, open(os.path.join(path, "config.json"), "w"), indent=2)


def main():
    out = sys.argv[1]
    torch.set_num_threads(1)
    for idx, (name, (diff, theta, scaling, spelling)) in enumerate(CASES.items()):
        torch.manual_seed(77 + idx)
        d = os.path.join(out, name)
        shutil.rmtree(d, ignore_errors=True)
        os.makedirs(os.path.join(d, "checkpoint"))
        args = dict(BASE, **diff)
        write_config(os.path.join(d, "checkpoint"), args, theta, scaling, spelling)
        cfg = LlamaConfig.from_pretrained(os.path.join(d, "checkpoint"))  # as a user's file is read
        cfg._attn_implementation = "eager"
        model = LlamaForCausalLM(cfg).float()
        with torch.no_grad():
            for n, p in model.named_parameters():
                if p.dim() > 1: p.normal_(0, 0.15)
                elif "norm" in n: p.uniform_(0.5, 1.5)
                else: p.normal_(0, 0.1)
        tied = args.get("tie_word_embeddings", False)
        save_file({k: v.detach().clone() for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")},
                  os.path.join(d, "checkpoint", "model.safetensors"), metadata={"format": "pt"})
        B, S = 2, 40
        ids = torch.randint(0, cfg.vocab_size, (B, S))
        mask = torch.ones(B, S, dtype=torch.long); mask[1, 33:] = 0
        labels = ids.clone(); labels[mask == 0] = -100; labels[0, :5] = -100
        model.train(); model.zero_grad()
        o = model(input_ids=ids, attention_mask=mask, labels=labels, output_hidden_states=True, use_cache=False)
        o.loss.backward()
        t = dict(input_ids=ids.int(), labels=labels.int(), attention_mask=mask.int(), logits=o.logits.detach())
        for i, h in enumerate(o.hidden_states): t[f"hidden.{i}"] = h.detach()
        for n, p in model.named_parameters(): t[f"grad.{n}"] = p.grad.detach().clone()
        save_file({k: v.contiguous().clone() for k, v in t.items()}, os.path.join(d, "expected.safetensors"))
        json.dump(dict(loss=o.loss.item()), open(os.path.join(d, "expected.json"), "w"), indent=2)
        print(name, float(o.loss), cfg.rope_parameters)


main()
