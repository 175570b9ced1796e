#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets' corpora, each into testdata/ beside its target.

Usage: tests/fuzz/make_corpus.py, from the repository's root. Files called found-* are inputs that a fuzzer found; they
are left alone.
"""
import json
import pathlib
import struct
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write(target, seeds):
    folder = ROOT / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds.items():
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def safetensors(header, data=b"", pad=0):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * pad
    return struct.pack("<Q", len(text)) + text + data


def tensors(entries, metadata=None):
    """Entries: name -> (dtype, shape, bytes)."""
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape, raw) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return safetensors(header, data)


def floats(*values):
    return struct.pack("<%df" % len(values), *values)


def archive(files):
    """Several files in one input: tests/fuzz/fuzzing.h, UnpackFiles."""
    out = b""
    for name, data in files.items():
        out += (b"\n" if out else b"") + b"=== " + name.encode() + b"\n"
        out += data if isinstance(data, bytes) else data.encode()
    return out


JSON = {
    "all_kinds": '{"a": [1, -2, 3.5e-7, true, false, null], "b": {"c": "d"}, "e": ""}',
    "numbers": "[0, -0, -0.0, 9223372036854775807, -9223372036854775808, 18446744073709551615, 1e308, 5e-324, 0.1]",
    "strings": '["\\u0000", "\\ud83d\\ude00", "\\"\\\\\\/\\b\\f\\n\\r\\t", "\u00e4\u65e5\U0001f600"]',
    "empty_containers": "[[], {}, [[]], [{}]]",
    "python": '{"a": NaN, "b": Infinity, "c": -Infinity}',
    "byte_order_mark": b'\xef\xbb\xbf{"a": 1}',
    "deep": "[" * 200 + "]" * 200,
    "deeper": "[" * 1001,
    "half_pairs": '["\\ud83d", "\\ude00", "\\ud83d\\ud83d\\ude00", {"\\udc00": 1}]',
    "long_integer": "[" + "9" * 100 + ", -" + "1" * 30 + ", 1e400, 1e-400]",
    "python_words": '[None, True]',
    "twice": '{"a": 1, "a": 2}',
    "lone_surrogate": '"\\udc00"',
    "nul": b"1\0",
    "not_utf8": b'"\xff\xfe"',
    "cut": '{"a": [1, 2',
}

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 64, "hidden_size": 16,
    "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-05, "hidden_act": "silu", "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
}


def config(**changes):
    return json.dumps({**CONFIG, **changes})


ROPES = {
    "linear": {"type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
             "truncate": False, "attention_factor": 1.1, "original_max_position_embeddings": 32},
}

CONFIGS = {
    "plain": config(),
    "absent": '{"model_type": "llama"}',
    "nulls": config(pad_token_id=None, rope_scaling=None, head_dim=None, eos_token_id=None),
    "lists": config(eos_token_id=[2, 3], pad_token_id=-1, head_dim=8, attention_bias=True, mlp_bias=True),
    "parameters": config(rope_parameters={"rope_type": "default", "rope_theta": 500000.0}, dtype="float32"),
    "largest": config(vocab_size=2**31 - 1, hidden_size=2**31 - 1, num_hidden_layers=10000, num_attention_heads=1,
                      num_key_value_heads=1, head_dim=2, intermediate_size=2**30 - 1),
    "mistral": config(model_type="mistral", architectures=["MistralForCausalLM"]),
    **{"rope_" + name: config(rope_scaling=rope, rope_theta=10000) for name, rope in ROPES.items()},
}

GENERATION = {
    "one": '{"eos_token_id": 2, "do_sample": true, "temperature": 0.6}',
    "list": '{"eos_token_id": [128001, 128008, 128009], "bos_token_id": 128000}',
    "none": '{"_from_model_config": true}',
    "null": '{"eos_token_id": null}',
    "processors": '{"repetition_penalty": 1.1, "no_repeat_ngram_size": 3, "num_beams": 4, "bad_words_ids": [[1, 2]], '
                  '"suppress_tokens": [1], "forced_eos_token_id": 2, "min_new_tokens": 5}',
    "wrong": '{"eos_token_id": [-1, "2", 1.5]}',
    "array": "[]",
}

HEADER = "te cublasLt choices 2 | NVIDIA H200 | driver 13000 | cublasLt 130100"
CHOICES = {
    "two": HEADER + "\n8x8x8 bf16 : 67 18 36 1 0 0 0 0 2\nte cudnn 2 | NVIDIA H200 | driver 13000 | cudnn 91900\na : 3 1:2\n",
    "cards": HEADER + "\n" + HEADER.replace("H200", "H100 80GB HBM3") + "\n",
    "patch": HEADER + "\n" + HEADER.replace("130100", "130104") + "\n",
    "no_header": "8x8x8 : 1 2 3\n",
    "cut": HEADER + "\n8x8x8 : 67",
    "nul": HEADER + "\na\0b : 1\n",
    "separators": HEADER + "\n : a :  : b\n : \n",
}

KINDS = {
    "empty": "", "zeros": b"\0" * 64, "pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "page": "<!DOCTYPE html><html>", "xml": "<?xml version='1.0'?>", "answer": '{"error": "not found"}',
    "gzip": b"\x1f\x8b\x08", "zip": b"PK\x03\x04", "seven": b"7z\xbc\xaf\x27\x1c", "zstd": b"\x28\xb5\x2f\xfd",
    "pickle": b"\x80\x02}q\0.", "numpy": b"\x93NUMPY\x01\0", "hdf5": b"\x89HDF\r\n\x1a\n", "parquet": b"PAR1",
    "gguf": b"GGUF\3\0\0\0", "utf16": b"\xff\xfea\0", "tar": b"name" + b"\0" * 253 + b"ustar\0",
    "safetensors": b"\x02\0\0\0\0\0\0\0{}", "text": "plain text, \u00e4", "binary": b"\x01\x02\xfe",
}

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
SAFETENSORS = {
    "empty": safetensors(b"{}"),
    "one": tensors({"w": ("F32", [2, 2], floats(1, 2, 3, float("nan")))}),
    "many": tensors({
        "a": ("F64", [1], struct.pack("<d", 2.5)), "b": ("F16", [2], b"\x00\x3c\x00\xbc"), "c": ("BF16", [1], b"\x80\x3f"),
        "d": ("I64", [1], struct.pack("<q", -5)), "e": ("I32", [], b"\1\0\0\0"), "f": ("I16", [1], b"\1\0"),
        "g": ("I8", [1], b"\xff"), "h": ("U8", [3], b"abc"), "i": ("BOOL", [1], b"\1"), "j": ("F8_E4M3", [2], b"\0\1"),
        "k": ("U32", [0, 4], b""), "l": ("C64", [1], b"\0" * 8), "m": ("F4", [4], b"\x12\x34"),
        "n": ("F6_E2M3", [4], b"\1\2\3")}),
    "metadata": tensors({"w": ("U8", [1], b"x")}, {"format": "pt", "\u00e4": "\n"}),
    "padded": safetensors({"w": F32}, floats(1, 2), pad=13),
    "rank9": tensors({"w": ("U8", [1] * 9, b"x")}),
    "overlap": safetensors({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, b"\0" * 12),
    "hole": safetensors({"a": F32, "b": {**F32, "data_offsets": [12, 20]}}, b"\0" * 20),
    "overflow": safetensors({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 0]}}),
    "huge": safetensors({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
    "zero_times_huge": safetensors({"a": {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]}}),
    "twice": safetensors(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'),
    "longest_header": struct.pack("<Q", 2**63) + b"{}",
    "cut": safetensors({"w": F32}, floats(1)),
    "line_break": tensors({"a\nb\x1b[2J": ("F99", [1], b"x")}),
}

QUOTE = tensors({"model.embed_tokens.weight": ("BF16", [2, 2], b"\x80\x3f" * 4)})
QUOTE2 = tensors({"lm_head.weight": ("BF16", [2, 2], b"\x80\x3f" * 4)})


def index(weight_map, **more):
    return json.dumps({"metadata": {"total_size": 16}, "weight_map": weight_map, **more})


BOTH = {"model.embed_tokens.weight": "a.safetensors", "lm_head.weight": "b.safetensors"}
SHARDS = {"a.safetensors": QUOTE, "b.safetensors": QUOTE2}
INDEX = "model.safetensors.index.json"
DIRECTORIES = {
    "single": archive({"model.safetensors": QUOTE}),
    "shards": archive({INDEX: index(BOTH), **SHARDS}),
    "surplus": archive({INDEX: index({**BOTH, "absent": "a.safetensors"}), **SHARDS}),
    "swapped": archive({INDEX: index({"lm_head.weight": "a.safetensors"}), **SHARDS}),
    "twice": archive({INDEX: index(BOTH), "a.safetensors": QUOTE, "b.safetensors": QUOTE}),
    "outside": archive({INDEX: index({"w": "../../../etc/passwd"}), **SHARDS}),
    "dots": archive({INDEX: index({"lm_head.weight": "./b.safetensors"}), **SHARDS}),
    "missing": archive({INDEX: index(BOTH), "a.safetensors": QUOTE}),
    "itself": archive({INDEX: index({"w": INDEX})}),
    "pointer": archive({"model.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"}),
    "page": archive({"pytorch_model.bin": "<!doctype html>"}),
    "nothing": archive({"weights.gguf": "GGUF"}),
    "model": archive({"config.json": '{"model_type": "llama"}', "model.safetensors": QUOTE}),
    "config_alone": archive({"config.json": '{"model_type": "llama"}'}),
    "config_page": archive({"config.json": "<html>"}),
    "adapter": archive({"adapter_config.json": "{}", "adapter_model.safetensors": QUOTE}),
    "interrupted": archive({"config.json": "{}", "model.safetensors.incomplete": "x"}),
    "no_map": archive({INDEX: '{"metadata": {}}'}),
}


def varint(value):
    out = b""
    while True:
        out += bytes([value & 0x7F | (0x80 if value > 0x7F else 0)])
        value >>= 7
        if not value:
            return out


def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def sentencepiece(model_type, bytes_too=False, charsmap=None, pieces=("\u2581", "a", "H", "e", "l", "o", "ll", "\u2581a")):
    """tokenizer.model, by sentencepiece_model.proto."""
    listed = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    if bytes_too:
        listed += [("<0x%02X>" % i, 0.0, 6) for i in range(256)]
    listed += [(piece, -float(i + 1), 1) for i, piece in enumerate(pieces)]
    out = b""
    for piece, score, kind in listed:
        out += field(1, field(1, piece.encode()) + field(2, score) + field(3, kind))
    out += field(2, field(3, model_type) + field(35, int(bytes_too)))
    normalizer = field(1, b"identity") + field(3, 1) + field(4, 0) + field(5, 1)
    if charsmap is not None:
        normalizer += field(2, charsmap)
    return out + field(3, normalizer)


TOKENIZER_CONFIG = json.dumps({
    "add_bos_token": True, "add_eos_token": True, "bos_token": "<s>", "eos_token": {"content": "</s>"},
    "pad_token": "<pad>", "added_tokens_decoder": {"11": {"content": "<pad>"}}})
UNIGRAM = sentencepiece(1)
TOKENIZERS = {
    "unigram": archive({"tokenizer.model": UNIGRAM, "tokenizer_config.json": TOKENIZER_CONFIG}),
    "bpe": archive({"tokenizer.model": sentencepiece(2)}),
    "word": archive({"tokenizer.model": sentencepiece(3)}),
    "char": archive({"tokenizer.model": sentencepiece(4)}),
    "bytes": archive({"tokenizer.model": sentencepiece(2, bytes_too=True)}),
    # A trie of one double-array unit, and its normalized strings.
    "charsmap": archive({"tokenizer.model": sentencepiece(1, charsmap=struct.pack("<I", 1024) + b"\0" * 1024 + b"a\0")}),
    "charsmap_beyond": archive({"tokenizer.model": sentencepiece(1, charsmap=struct.pack("<II", 4, 0xFFFFFFFF) + b"a\0")}),
    "charsmap_rules": archive({"tokenizer.model": (ROOT / "models/tokenizer/testdata/rules.model").read_bytes()}),
    "other_config": archive({"tokenizer.model": UNIGRAM, "tokenizer_config.json":
                             '{"add_bos_token": 1, "bos_token": null, "added_tokens_decoder": []}'}),
    "odd_added": archive({"tokenizer.model": UNIGRAM, "tokenizer_config.json":
                          '{"pad_token": "x", "added_tokens_decoder": {"99999999999": {"content": "x"}}}'}),
    "huggingface_json": archive({"tokenizer.json": "{}"}),
    "pointer": archive({"tokenizer.model": "version https://git-lfs.github.com/spec/v1\n"}),
}

IDS = tensors({"input_ids": ("I64", [2, 2], struct.pack("<4q", 1, 2, 3, 4)),
               "labels": ("I32", [2, 2], struct.pack("<4i", 1, -100, 3, 4)),
               "attention_mask": ("BOOL", [2, 2], b"\1\0\1\1")})
DATA = {
    "json_lines": 'j\n{"text": "Hello"}\n\n{"text": "two", "more": [1]}\n',
    "json_no_text": 'j\n{"prompt": "Hello", "completion": "x"}\n',
    "json_array": 'j\n[{"text": "a"}]',
    "json_mark": b'j\n\xef\xbb\xbf{"text": "a long text of many more tokens than are taken"}\r\n',
    "text": "t\nfirst line\n\n  \nsecond line, somewhat longer\r\n\u00e4\u65e5",
    "text_not_utf8": b"t\nfine\n\xff\xfe\n",
    "blank": "t\n\n \t\n",
    "detect_json": 'd\n {"text": "a"}\n',
    "detect_csv": 'd\nid,text\n1,"a, b"\n2,c\n',
    "detect_page": "d\n<!doctype html>\n",
    "detect_gzip": b"d\n\x1f\x8b\x08\0\0\0\0\0",
    "ids": b"s\n" + IDS,
    "ids_float": b"s\n" + tensors({"input_ids": ("F32", [1, 1], floats(1))}),
    "ids_beyond": b"s\n" + tensors({"input_ids": ("I16", [1, 1], b"\0\x7f")}),
    "ids_none": b"s\n" + tensors({"input_ids": ("I32", [0, 4], b"")}),
    "ids_huge": b"s\n" + safetensors({"input_ids": {"dtype": "I32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}),
}


def rules(recipe, **more):
    return json.dumps({"configs": {"one": {"training_recipe": recipe, **more}},
                       "matchers": [{"pattern": "*.fc2", "config": "one"}]})


RULES = {
    "null": rules(None),
    "delayed": rules({"recipe": "delayed", "margin": 1, "fp8_format": "hybrid", "amax_history_len": 16,
                      "amax_compute_algo": "max", "reduce_amax": False, "fp8_dpa": False, "backward_override": "none"}),
    "current": rules({"recipe": "current", "fp8_format": "e4m3", "use_power_2_scales": True, "amax_epsilon": 1e-5,
                      "fp8_gemm_fprop": {"use_split_accumulator": True}}, evaluation_recipe=None),
    "block": rules({"recipe": "block", "use_f32_scales": False, "x_block_scaling_dim": 1, "w_block_scaling_dim": 2,
                    "grad_block_scaling_dim": 1}),
    "mxfp8": rules({"recipe": "mxfp8", "margin": 0, "enable_2d_quantization": True}),
    "nvfp4": rules({"recipe": "nvfp4", "disable_rht": True, "disable_stochastic_rounding": True, "fp4_format": "e2m1",
                    "nvfp4_4over6": "none"}),
    "unknown": rules({"recipe": "int8"}),
    "no_config": '{"configs": {}, "matchers": [{"pattern": "*", "config": "a"}]}',
    "odd": '{"configs": {"a\\n": {"training_recipe": {"recipe": "delayed", "amax_history_len": 1e300}}}, "matchers": []}',
}

SLOT = "model.layers.0.layernorm_mlp.fc2.input"
FP8 = {
    "two": tensors({SLOT + ".scale": ("F32", [1], floats(2)), SLOT + ".amax_history": ("F32", [3], floats(0, 1, 2)),
                    "a.weight.scale": ("F32", [1], floats(0.5)), "a.weight.amax_history": ("F32", [1], floats(448))},
                   {"te_fp8_state": "1", "recipe": "delayed", "step": "7", "format." + SLOT: "e4m3",
                    "format.a.weight": "e5m2"}),
    "none": tensors({}, {"te_fp8_state": "1"}),
    "version": tensors({}, {"te_fp8_state": "2"}),
    "negative": tensors({"a.b.scale": ("F32", [1], floats(-1)), "a.b.amax_history": ("F32", [1], floats(1))},
                        {"te_fp8_state": "1", "format.a.b": "e4m3"}),
    "nan": tensors({"a.b.scale": ("F32", [1], floats(1)), "a.b.amax_history": ("F32", [1], floats(float("nan")))},
                   {"te_fp8_state": "1", "format.a.b": "e4m3"}),
    "step": tensors({}, {"te_fp8_state": "1", "step": "99999999999999999999"}),
}


def optimizer(changes=None, metadata=None):
    weight, bias = "model.layer.weight", "model.layer.bias"
    entries = {
        weight + ".exp_avg": ("F32", [3, 4], floats(*[0.1] * 12)), weight + ".exp_avg_sq": ("F32", [3, 4], floats(*[1] * 12)),
        weight + ".master": ("F32", [3, 4], floats(*range(12))), weight + ".param": ("BF16", [3, 4], b"\x80\x3f" * 12),
        bias + ".exp_avg": ("F32", [5], floats(*[0.1] * 5)), bias + ".exp_avg_sq": ("F32", [5], floats(*[1] * 5)),
        **(changes or {})}
    return tensors({name: entry for name, entry in entries.items() if entry is not None}, {
        "te_optimizer_state": "1", "step": "3", "position": "4", "calibration_steps": "0", "fp8_tensors": "0", "seed": "9",
        "rng_offset": "12", "random_stream." + weight: "5", "random_stream." + bias: "6", "run.steps": "10",
        **(metadata or {})})


OPTIMIZER = {
    "whole": optimizer(),
    "no_param": optimizer({"model.layer.weight.param": None}),
    "nan": optimizer({"model.layer.bias.exp_avg": ("F32", [5], floats(*[float("nan")] * 5))}),
    "negative": optimizer({"model.layer.bias.exp_avg_sq": ("F32", [5], floats(*[-1] * 5))}),
    "shape": optimizer({"model.layer.bias.exp_avg_sq": ("F32", [1, 5], floats(*[1] * 5))}),
    "surplus": optimizer({"model.other.exp_avg": ("F32", [1], floats(1))}),
    "seed": optimizer(metadata={"seed": "10"}),
    "numbers": optimizer(metadata={"step": "-1", "rng_offset": "18446744073709551615"}),
    "unknown": optimizer(metadata={"more": ""}),
}


def pickles():
    """data.pkl of the hand-made and written files of torch.save."""
    out = {}
    for path in sorted((ROOT / "models/checkpoint/testdata").glob("*.bin")):
        if path.stem == "no_crc" or not zipfile.is_zipfile(path):
            continue
        with zipfile.ZipFile(path) as zipped:
            for name in zipped.namelist():
                if name.endswith("/data.pkl"):
                    out[path.stem] = zipped.read(name)
    out["cycle"] = b"\x80\x02]q\0h\0a."
    out["itself_as_key"] = b"\x80\x02}q\0h\0h\0s."
    out["many_references"] = b"\x80\x02](" + b"]" + b"2" * 40 + b"e."
    out["deep"] = b"\x80\x02" + b"]" * 50 + b"a" * 49 + b"."
    return out


def main():
    write("models/json/testdata/json_fuzz", JSON)
    write("models/llama/testdata/config_fuzz", CONFIGS)
    write("models/llama/testdata/generation_config_fuzz", GENERATION)
    write("models/llama/testdata/choices_text_fuzz", CHOICES)
    write("models/file_kind/testdata/file_kind_fuzz", KINDS)
    write("models/checkpoint/testdata/safetensors_fuzz", SAFETENSORS)
    write("models/checkpoint/testdata/pickle_fuzz", pickles())
    write("models/checkpoint/testdata/checkpoint_reader_fuzz", DIRECTORIES)
    write("models/tokenizer/testdata/tokenizer_fuzz", TOKENIZERS)
    write("models/data/testdata/dataset_fuzz", DATA)
    write("models/quantization/testdata/rules_file_fuzz", RULES)
    write("models/quantization/testdata/fp8_state_file_fuzz", FP8)
    write("models/train/testdata/optimizer_state_file_fuzz", OPTIMIZER)


main()
