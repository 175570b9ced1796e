"""Writes rotary_expected.h: what Hugging Face's LlamaRotaryEmbedding computes, in float32.

    python3 make_rotary_expected.py > rotary_expected.h      (needs torch and transformers)
"""

import torch
import transformers
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}

# name, head_dim, rope_theta, max_position_embeddings, rope_parameters, length
CASES = [
    ("default", 32, 10000.0, 256, {"rope_type": "default"}, 300),
    ("default_odd_pairs", 10, 500000.0, 2048, {"rope_type": "default"}, 2048),
    ("linear", 32, 10000.0, 256, {"rope_type": "linear", "factor": 2.5}, 300),
    ("dynamic_short", 32, 10000.0, 256, {"rope_type": "dynamic", "factor": 2.0}, 200),
    ("dynamic_long", 32, 10000.0, 256, {"rope_type": "dynamic", "factor": 2.0}, 1000),
    ("dynamic_just_longer", 20, 10000.0, 256, {"rope_type": "dynamic", "factor": 3.3}, 257),
    ("llama3", 64, 500000.0, 131072, LLAMA3, 5000),
    ("llama3_small", 32, 10000.0, 512, {**LLAMA3, "factor": 3.0, "low_freq_factor": 1.5,
                                        "high_freq_factor": 6.0, "original_max_position_embeddings": 128}, 512),
    ("yarn", 32, 10000.0, 2048, YARN, 2048),
    ("yarn_attention_factor", 32, 10000.0, 2048, {**YARN, "attention_factor": 1.25}, 64),
    ("yarn_mscale", 64, 10000.0, 2048, {**YARN, "mscale": 0.707, "mscale_all_dim": 1.4, "beta_fast": 24.0,
                                        "beta_slow": 2.0}, 2048),
    ("yarn_mscale_alone", 32, 10000.0, 2048, {**YARN, "mscale": 0.707}, 16),
    ("yarn_untruncated", 32, 150000.0, 2048, {**YARN, "truncate": False}, 2048),
    ("yarn_factor_below_one", 16, 10000.0, 512, {**YARN, "factor": 0.5, "original_max_position_embeddings": 1024}, 100),
    ("yarn_empty_ramp", 32, 10000.0, 8, {**YARN, "original_max_position_embeddings": 4}, 32),
]

TYPES = {"default": "kDefault", "linear": "kLinear", "dynamic": "kDynamic", "llama3": "kLlama3", "yarn": "kYarn"}
FIELDS = ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "beta_fast",
          "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate"]


def literal(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def floats(tensor):
    text = ", ".join(float(v).hex() + "f" for v in tensor.flatten())
    return "{" + text + "}"


def case(name, dim, theta, longest, parameters, length):
    config = LlamaConfig(hidden_size=2 * dim, num_attention_heads=2, head_dim=dim, max_position_embeddings=longest,
                         rope_parameters={"rope_theta": theta, **parameters})
    rotary = LlamaRotaryEmbedding(config)
    cos, sin = rotary(torch.zeros(1, dtype=torch.float32), torch.arange(length)[None])
    rows = sorted({0, 1, min(100, length - 1), length - 1})
    scaling = [f".type = RopeType::{TYPES[parameters['rope_type']]}"]
    scaling += [f".{field} = {literal(parameters[field])}" for field in FIELDS if field in parameters]
    return f"""    {{
        .name = "{name}",
        .options = {{.dim = {dim},
                    .rotary_base = {theta!r},
                    .max_position_embeddings = {longest},
                    .scaling = {{{", ".join(scaling)}}}}},
        .length = {length},
        .attention_factor = {float(rotary.attention_scaling)!r}f,
        .inverse_frequencies = {floats(rotary.inv_freq)},
        .rows = {{{", ".join(map(str, rows))}}},
        .cos = {floats(cos[0, rows, :dim // 2])},
        .sin = {floats(sin[0, rows, :dim // 2])},
    }},
"""


print(f"""// Written by make_rotary_expected.py with transformers {transformers.__version__}, torch {torch.__version__}.
// clang-format off
#pragma once

#include <cstdint>
#include <vector>

#include "te_core/layers/rotary_position_embedding.h"

namespace te {{

struct RotaryExpected {{
  const char* name;
  RotaryOptions options;
  int64_t length;
  float attention_factor;
  std::vector<float> inverse_frequencies;
  std::vector<int64_t> rows;
  std::vector<float> cos;  // [rows, dim / 2]
  std::vector<float> sin;
}};

inline const std::vector<RotaryExpected> kRotaryExpected = {{
{"".join(case(*c) for c in CASES)}}};

}}  // namespace te""")
