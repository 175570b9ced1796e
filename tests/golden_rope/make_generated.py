#!/usr/bin/env python3
"""Prints what Hugging Face's generate gives greedily with RoPE's dynamic scaling beyond max_position_embeddings: the table of
../field/20_c_dynamic_ntk_generation_test.sh, a prompt and its tokens a line, and how far the two likeliest logits are apart at least.

usage: make_generated.py            needs torch, transformers; runs on the CPU
"""
import os
import sys
import torch
from transformers import LlamaForCausalLM

PROMPTS = ([1, 5, 9], [7] + [3, 1, 4, 1, 5, 9, 2, 6] * 3)


def main():
    torch.set_num_threads(1)
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dynamic-beyond", "checkpoint")
    for prompt in PROMPTS:
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()  # anew: its RoPE remembers lengths
        model.generation_config.eos_token_id = None
        ids = torch.tensor([prompt])
        out = model.generate(ids, max_new_tokens=60, do_sample=False, attention_mask=torch.ones_like(ids), pad_token_id=0,
                             output_logits=True, return_dict_in_generate=True)
        apart = min(float(best[0] - best[1]) for best in (step[0].topk(2).values for step in out.logits))
        print(",".join(map(str, prompt)), ",".join(map(str, out.sequences[0].tolist()[len(prompt):])))
        print(f"apart by {apart:.1e}", file=sys.stderr)


if __name__ == "__main__":
    main()
