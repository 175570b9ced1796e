#!/usr/bin/env python3
"""Whole fine-tuning steps of a Llama in Hugging Face transformers (PyTorch), timed as bench/step times ours.

usage: huggingface_step.py --model llama2-7b --shape 8x256 [--compile]        needs torch and transformers

Random weights, BF16 parameters, SDPA attention, fused AdamW (its moments have the parameters' dtype: BF16), labels = input
ids, optimizer included, no clipping unless asked for. Five steps warm up, ten are timed by CUDA events, without a wait in
between. Prints one line of JSON.
"""
import argparse
import json
import sys
import time

import torch
import transformers

CONFIGS = {
    "llama2-7b": dict(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                      num_attention_heads=32, num_key_value_heads=32, max_position_embeddings=4096),
    "llama3-8b": dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                      num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=8192,
                      rope_theta=500000.0),
    "110m": dict(vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12,
                 num_attention_heads=12, num_key_value_heads=12, max_position_embeddings=2048),
}


def llama_config(name):
    values = dict(CONFIGS[name])
    theta = values.pop("rope_theta", 10000.0)
    config = transformers.LlamaConfig(**values, rms_norm_eps=1e-5, use_cache=False, tie_word_embeddings=False,
                                      rope_parameters={"rope_type": "default", "rope_theta": theta})
    assert config.rope_parameters["rope_theta"] == theta, "this transformers does not know rope_parameters"
    return config


def model_flops(config, batch, sequence):
    """6 a matmul weight and token (lm_head in, embedding out) and three forward passes of causal attention."""
    head_dim = config.hidden_size // config.num_attention_heads
    heads = config.num_attention_heads * head_dim
    groups = config.num_key_value_heads * head_dim
    layer = config.hidden_size * (2 * heads + 2 * groups) + 3 * config.hidden_size * config.intermediate_size
    weights = config.num_hidden_layers * layer + config.hidden_size * config.vocab_size
    pairs = sequence * (sequence + 1) / 2
    return batch * (6 * weights * sequence + 3 * 4 * heads * pairs * config.num_hidden_layers)


class Clock:
    """Marks in the GPU's stream; on the CPU, where calls are synchronous, times."""

    def __init__(self, device):
        self.cuda = device == "cuda"
        self.marks = []

    def mark(self):
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def milliseconds(self):
        if self.cuda:
            torch.cuda.synchronize()
            return [a.elapsed_time(b) for a, b in zip(self.marks, self.marks[1:])]
        return [(b - a) * 1e3 for a, b in zip(self.marks, self.marks[1:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=CONFIGS, default="llama2-7b")
    parser.add_argument("--shape", default="8x256", help="sequences x tokens of a micro-batch: 8x256, 1x4096, 2x4096")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--micro-batches", type=int, default=1, help="of a step")
    parser.add_argument("--max-grad-norm", type=float, default=0, help="clip the gradient's norm; 0: never")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the script")
    options = parser.parse_args()
    batch, sequence = (int(number) for number in options.shape.split("x"))

    config = llama_config(options.model)
    torch.manual_seed(0)
    with torch.device(options.device):
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.bfloat16)
        ids = [torch.randint(0, config.vocab_size, (batch, sequence)) for _ in range(options.micro_batches)]
    model.train()
    assert model.dtype == torch.bfloat16 and model.config._attn_implementation == "sdpa"
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.41e-5, fused=True)
    forward = torch.compile(model) if options.compile else model

    def step():
        for input_ids in ids:
            loss = forward(input_ids=input_ids, labels=input_ids).loss
            (loss / len(ids)).backward()
        if options.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    losses = [step() for _ in range(options.warmup)]
    clock = Clock(options.device)
    clock.mark()
    for _ in range(options.steps):
        losses.append(step())
        clock.mark()
    each = clock.milliseconds()
    milliseconds = sum(each) / len(each)

    flops = options.micro_batches * model_flops(config, batch, sequence)
    settings = {
        "model": options.model, "parameters": parameters, "batch_size": batch, "sequence_length": sequence,
        "micro_batches": options.micro_batches, "max_grad_norm": options.max_grad_norm, "precision": "bf16",
        "compile": options.compile, "torch": torch.__version__, "transformers": transformers.__version__,
    }
    peak = 0
    if options.device == "cuda":
        settings |= {"card": torch.cuda.get_device_name(), "cuda": torch.version.cuda,
                     "cudnn": torch.backends.cudnn.version()}
        peak = torch.cuda.max_memory_allocated() / 2**30
    json.dump({
        "settings": settings,
        "milliseconds": milliseconds,
        "median_milliseconds": sorted(each)[len(each) // 2],
        "step_milliseconds": each,
        "tokens_per_second": options.micro_batches * batch * sequence / milliseconds * 1e3,
        "model_tflops_per_second": flops / milliseconds * 1e-9,
        "peak_gib": peak,
        "losses": [float(loss) for loss in losses],
    }, sys.stdout)
    print()


if __name__ == "__main__":
    main()
