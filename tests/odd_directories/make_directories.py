#!/usr/bin/env python3
"""Makes directories that people have, or could have, where a checkpoint should be: make_directories.py OUT.

Each case of cases() is one directory OUT/NAME. Everything follows from this file: the same bytes each time. What
transformers does with each is recorded in hugging_face.json by ask_hugging_face.py; compare_with_te.py holds te to it.
"""

import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tensor_files import Tensor, safetensors, torch_zip, values  # noqa: E402

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": 24, "hidden_size": 8,
    "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}
# The input of the comparison.
TOKENS = [1, 5, 17, 9]

SAFE, BIN = "model.safetensors", "pytorch_model.bin"
INDEX, BIN_INDEX = SAFE + ".index.json", BIN + ".index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
EMBED, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
Q0, UP1 = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight"

# What te does where transformers loads the weights of the directory, and all of them.
EQUAL = "equal"    # it loads them too, with equal logits; the rule
REFUSE = "refuse"  # it says why it does not
# Where transformers refuses the directory, or fills tensors in at random, te refuses it, too, unless:
LOADS = "loads"    # te loads it all the same, with the logits of the plain directory


class Case:
    """One directory. `files`: name and bytes, or a link's target as ("link", target), or a folder as None. `says`: what
    te's message must match where te refuses. `te`: EQUAL, REFUSE or LOADS. `flags`: of te; `arguments`: of from_pretrained,
    the same thing."""

    def __init__(self, files, says=None, te=EQUAL, flags=(), arguments=None):
        self.files, self.says, self.te, self.flags, self.arguments = files, says, te, list(flags), arguments or {}


def tensor(name, *shape, dtype="F32"):
    count = 1
    for dim in shape:
        count *= dim
    return Tensor(shape, values(name, count, 1.0 if "norm" in name else 0.0), dtype)


def weights(layers=2, head=True, biases=False):
    c = CONFIG
    hidden, ffn, kv = c["hidden_size"], c["intermediate_size"], c["hidden_size"] // 2
    out = {EMBED: tensor(EMBED, c["vocab_size"], hidden)}
    for i in range(layers):
        def add(name, *shape):
            full = "model.layers.%d.%s" % (i, name)
            out[full] = tensor(full, *shape)

        for name, rows in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden)):
            add("self_attn.%s_proj.weight" % name, rows, hidden)
            if biases:
                add("self_attn.%s_proj.bias" % name, rows)
        add("mlp.gate_proj.weight", ffn, hidden)
        add("mlp.up_proj.weight", ffn, hidden)
        add("mlp.down_proj.weight", hidden, ffn)
        add("input_layernorm.weight", hidden)
        add("post_attention_layernorm.weight", hidden)
    out[NORM] = tensor(NORM, hidden)
    if head:
        out[HEAD] = tensor(HEAD, c["vocab_size"], hidden)
    return out


def config(**changes):
    out = dict(CONFIG)
    for key, value in changes.items():
        if value == "absent":
            out.pop(key)
        else:
            out[key] = value
    return json.dumps(out, indent=1).encode()


def index(weight_map, metadata="absent"):
    out = {} if metadata is None else {"metadata": {"total_size": 1} if metadata == "absent" else metadata}
    return json.dumps({**out, "weight_map": weight_map}, indent=1).encode()


def st(tensors):
    return safetensors(tensors, {"format": "pt"})


def single(tensors, **changes):
    return {"config.json": config(**changes), SAFE: st(tensors)}


def without(tensors, *names):
    return {k: v for k, v in tensors.items() if k not in names}


def renamed(tensors, rule):
    return {rule(k): v for k, v in tensors.items()}


def other(name, *shape):
    """Values that are not those of tensor(name, ...)."""
    return Tensor(shape, values("other " + name, tensor(name, *shape).numbers.__len__(), 1.0 if "norm" in name else 0.0))


def halves(tensors):
    names = list(tensors)
    return ({k: tensors[k] for k in names[:10]}, {k: tensors[k] for k in names[10:]})


def sharded(first, second, weight_map=None, metadata="absent", **extra):
    """Two shards whose index says what they hold, unless weight_map does."""
    if weight_map is None:
        weight_map = {**{k: ONE for k in first}, **{k: TWO for k in second}}
    return {"config.json": config(), ONE: st(first), TWO: st(second), INDEX: index(weight_map, metadata), **extra}


def index_cases():
    w = weights()
    a, b = halves(w)
    whole = {**{k: ONE for k in a}, **{k: TWO for k in b}}
    extra = {"some.thing": tensor("some.thing", 3)}
    names = list(w)
    yield "index", Case(sharded(a, b))
    yield "index_without_metadata", Case(sharded(a, b, metadata=None), te=LOADS)
    yield "index_with_empty_metadata", Case(sharded(a, b, metadata={}))
    yield "index_with_null_metadata", Case(sharded(a, b, metadata={"total_size": None, "x": [1]}))
    yield "index_of_a_tensor_in_both_shards", Case(sharded(a, {**b, EMBED: w[EMBED]}, whole))
    yield "index_of_a_tensor_in_both_shards_the_last_named", Case(sharded(a, {**b, EMBED: w[EMBED]}, {**whole, EMBED: TWO}))
    yield "index_of_two_values_the_last_named", Case(
        sharded({**a, NORM: other(NORM, 8)}, b, whole))
    yield "index_of_two_values_the_first_named", Case(
        sharded(a, {**b, EMBED: other(EMBED, 24, 8)}, whole), te=REFUSE,
        says="model.embed_tokens.weight is in two files with different values: .*00001.* and .*00002")
    yield "index_of_two_values_of_a_surplus_tensor", Case(
        sharded({**a, "x": tensor("x", 3)}, {**b, "x": other("x", 3)}, {**whole, "x": ONE}))
    yield "index_of_two_shapes_the_last_named", Case(sharded({**a, NORM: tensor(NORM, 3)}, b, whole))
    yield "index_of_a_tensor_that_is_nowhere", Case(sharded(a, b, {**whole, "some.thing": ONE}))
    yield "index_of_a_tensor_in_a_missing_shard", Case(
        sharded(a, b, {**whole, "some.thing": "model-00003-of-00003.safetensors"}),
        says="model-00003-of-00003.safetensors: no such file; .* some.thing")
    yield "index_names_a_missing_shard", Case(without(sharded(a, b), TWO), says=TWO + ": no such file")
    yield "index_names_the_other_shard", Case(sharded(a, b, {**whole, EMBED: TWO}))
    yield "index_leaves_a_tensor_out", Case(sharded(a, b, without(whole, NORM)))
    yield "index_leaves_a_shard_out", Case(
        sharded(a, b, {k: ONE for k in a}), says="is in none of the checkpoint's files.*index.* names .*" + TWO)
    yield "index_of_a_wanted_tensor_that_is_nowhere", Case(
        sharded(a, without(b, NORM), whole), says="tensor model.norm.weight .*is said to be in " + TWO)
    yield "index_with_an_empty_map", Case(sharded(a, b, {}), says="names no tensor")
    yield "index_without_a_map", Case({**sharded(a, b), INDEX: b'{"metadata": {}}'}, says='no "weight_map"')
    yield "index_with_a_surplus_shard", Case(
        sharded(a, b, {**whole, "some.thing": "more.safetensors"}, **{"more.safetensors": st(extra)}))
    yield "index_leads_up", Case(
        {**without(sharded(a, b, {**{k: ONE for k in a}, **{k: "../index/" + TWO for k in b}}), TWO)}, te=REFUSE,
        says="leads out of the directory")
    yield "index_with_an_absolute_path", Case(sharded(a, b, {**whole, NORM: "/nowhere/x.safetensors"}),
                                              says="leads out of the directory")
    yield "index_into_a_folder", Case({
        "config.json": config(), "parts/one.safetensors": st(a), "parts/two.safetensors": st(b),
        INDEX: index({**{k: "parts/one.safetensors" for k in a}, **{k: "parts/two.safetensors" for k in b}})})
    yield "index_with_a_dot", Case(sharded(a, b, {**{k: ONE for k in a}, **{k: "./" + TWO for k in b}}))
    yield "index_with_two_spellings", Case(sharded(a, b, {**whole, NORM: "./" + TWO}))
    yield "index_with_a_shards_name_in_unicode", Case({
        "config.json": config(), "te il \u00e9.safetensors": st(w), INDEX: index({k: "te il \u00e9.safetensors" for k in w})})
    yield "index_with_a_number", Case(sharded(a, b, {**whole, NORM: 2}), says="is 2; expected a string")
    yield "index_with_one_shard", Case({"config.json": config(), "all.safetensors": st(w),
                                        INDEX: index({k: "all.safetensors" for k in w})})
    yield "index_with_a_shard_a_tensor", Case({
        "config.json": config(), **{"t%02d.safetensors" % i: st({k: w[k]}) for i, k in enumerate(names)},
        INDEX: index({k: "t%02d.safetensors" % i for i, k in enumerate(names)})})
    yield "index_of_bin_shards", Case({
        "config.json": config(), "a.bin": torch_zip(a), "b.bin": torch_zip(b),
        INDEX: index({**{k: "a.bin" for k in a}, **{k: "b.bin" for k in b}})})
    yield "bin_index", Case({
        "config.json": config(), "pytorch_model-00001-of-00002.bin": torch_zip(a),
        "pytorch_model-00002-of-00002.bin": torch_zip(b),
        BIN_INDEX: index({**{k: "pytorch_model-00001-of-00002.bin" for k in a},
                          **{k: "pytorch_model-00002-of-00002.bin" for k in b}})})
    yield "bin_index_of_safetensors", Case({"config.json": config(), "all.safetensors": st(w),
                                            BIN_INDEX: index({k: "all.safetensors" for k in w})})
    yield "bin_index_of_a_tensor_in_both_shards", Case({
        "config.json": config(), "a.bin": torch_zip(a), "b.bin": torch_zip({**b, EMBED: w[EMBED]}),
        BIN_INDEX: index({**{k: "a.bin" for k in a}, **{k: "b.bin" for k in b}})})
    yield "index_is_missing", Case(without(sharded(a, b), INDEX), says="index.*is missing|without .*index")


def file_cases():
    w = weights()
    wrong = {**w, NORM: other(NORM, 8)}
    a, b = halves(wrong)
    yield "plain", Case(single(w))
    # The twin of every comparison: one value differs.
    yield "disturbed", Case(single({**w, UP1: Tensor([12, 8], w[UP1].numbers[:-1] + [w[UP1].numbers[-1] + 2**-6])}))
    yield "single_beside_an_index", Case({**sharded(a, b), SAFE: st(w)})
    yield "single_beside_bin", Case({**single(w), BIN: torch_zip(wrong)})
    yield "index_beside_bin", Case({**sharded(*halves(w)), BIN: torch_zip(wrong)})
    yield "bin", Case({"config.json": config(), BIN: torch_zip(w)})
    yield "bin_beside_bin_index", Case({
        "config.json": config(), BIN: torch_zip(w), "a.bin": torch_zip(wrong), BIN_INDEX: index({k: "a.bin" for k in w})})
    yield "bin_with_strides", Case({"config.json": config(), BIN: torch_zip(w, strided=(Q0, UP1, HEAD))})
    yield "bin_with_a_number", Case({"config.json": config(), BIN: torch_zip({**w, "epoch": 3})}, te=REFUSE,
                                    says="epoch")
    yield "bin_with_the_weights_one_level_down", Case(
        {"config.json": config(), BIN: torch_zip({"state_dict": {}, "epoch": 1})}, says="state_dict|not a tensor|no tensor")
    yield "bin_that_is_safetensors", Case({"config.json": config(), BIN: st(w)}, says="a safetensors file")
    yield "safetensors_that_is_bin", Case({"config.json": config(), SAFE: torch_zip(w)}, says="a file of torch.save")
    yield "single_without_metadata", Case({"config.json": config(), SAFE: safetensors(w)})
    for form in ("tf", "flax", "mlx", "np", "x"):
        yield "single_of_format_" + form, Case({"config.json": config(), SAFE: safetensors(w, {"format": form})})
    yield "single_without_tensors", Case({"config.json": config(), SAFE: st({})}, says="is in none")
    yield "folder_in_the_files_place", Case({**sharded(*halves(w)), SAFE: None})
    yield "dangling_link_in_the_files_place", Case(
        {**sharded(*halves(w)), SAFE: ("link", "../../blobs/nowhere")}, te=REFUSE, says="link that leads nowhere")
    yield "snapshot_of_links", Case({
        "blobs/1": config(), "blobs/2": st(w), "snapshots/0123/config.json": ("link", "../../blobs/1"),
        "snapshots/0123/" + SAFE: ("link", "../../blobs/2")}, flags=["--subfolder", "snapshots/0123"],
        arguments={"subfolder": "snapshots/0123"})
    yield "shard_is_a_dangling_link", Case({**sharded(*halves(w)), TWO: ("link", "../blobs/2")},
                                           says="link that leads nowhere")
    yield "variant", Case({"config.json": config(), "model.fp16.safetensors": st(w)}, flags=["--variant", "fp16"],
                          arguments={"variant": "fp16"})
    yield "variant_beside_default", Case({**single(wrong), "model.fp16.safetensors": st(w)}, flags=["--variant", "fp16"],
                                         arguments={"variant": "fp16"})
    yield "variant_alone", Case({"config.json": config(), "model.fp16.safetensors": st(w)}, says="--variant fp16")
    yield "variant_that_is_not_there", Case(single(w), flags=["--variant", "fp16"], arguments={"variant": "fp16"},
                                            says="no weights of variant fp16.*without --variant")
    yield "variant_index", Case({
        "config.json": config(), "a.safetensors": st(w), SAFE + ".index.fp16.json": index({k: "a.safetensors" for k in w})},
        flags=["--variant", "fp16"], arguments={"variant": "fp16"})
    yield "subfolder", Case({"deep/er/config.json": config(), "deep/er/" + SAFE: st(w)}, flags=["--subfolder", "deep/er"],
                            arguments={"subfolder": "deep/er"})
    yield "subfolder_unsaid", Case({"deep/er/config.json": config(), "deep/er/" + SAFE: st(w)}, says="deep/er")
    yield "weights_file_named_by_the_config", Case({
        "config.json": config(transformers_weights="x.safetensors"), "x.safetensors": st(w), SAFE: st(wrong)})
    yield "index_named_by_the_config", Case({
        **without(sharded(*halves(w)), INDEX), "config.json": config(transformers_weights="y.safetensors.index.json"),
        "y.safetensors.index.json": sharded(*halves(w))[INDEX]})
    yield "absent_file_named_by_the_config", Case(
        {**single(w), "config.json": config(transformers_weights="x.safetensors")}, says="x.safetensors")
    yield "escaping_file_named_by_the_config", Case(
        {**single(w), "config.json": config(transformers_weights="../plain/model.safetensors")}, says="transformers_weights")
    yield "bin_named_by_the_config", Case(
        {"config.json": config(transformers_weights="x.bin"), "x.bin": torch_zip(w)}, says="transformers_weights")


def name_cases():
    w, tied = weights(), weights(head=False)

    def prefixed(prefix):
        return single(renamed(w, lambda k: prefix + k))

    for name, prefix in (("module", "module."), ("orig_mod", "_orig_mod."), ("base_model", "base_model.model."),
                         ("fsdp", "_fsdp_wrapped_module."), ("forward_module", "_forward_module."),
                         ("language_model", "language_model."), ("module_orig_mod", "module._orig_mod."),
                         ("unknown", "my.own.")):
        yield "prefix_" + name, Case(prefixed(prefix), says='names begin with "%s"' % prefix.replace(".", r"\."))
    yield "prefix_transformer", Case(single(renamed(w, lambda k: k.replace("model.", "transformer.", 1))),
                                     says='"transformer\\."')
    yield "prefix_model_language_model", Case(single(renamed(w, lambda k: k.replace("model.", "model.language_model.", 1))),
                                              says='"model\\.language_model\\."')
    yield "prefix_module_of_some", Case(
        single({k if i % 3 else "module." + k: v for i, (k, v) in enumerate(w.items())}), says="module.model")
    # base_model_prefix is added where a name lacks it, and taken off where it stands twice.
    yield "base_names", Case(single(renamed(w, lambda k: k.removeprefix("model."))))
    yield "base_names_tied", Case(single(renamed(tied, lambda k: k.removeprefix("model.")), tie_word_embeddings=True,
                                         architectures=["LlamaModel"]))
    yield "base_names_in_shards", Case(sharded(*halves(renamed(w, lambda k: k.removeprefix("model.")))))
    yield "base_names_in_bin", Case({"config.json": config(),
                                     BIN: torch_zip(renamed(w, lambda k: k.removeprefix("model.")))})
    yield "base_names_without_head", Case(
        single(renamed(tied, lambda k: k.removeprefix("model.")), architectures=["LlamaModel"]),
        says="lm_head.weight.*tie_word_embeddings")
    yield "base_names_of_some", Case(single({k if i % 2 else k.removeprefix("model."): v for i, (k, v) in
                                             enumerate(w.items())}))
    yield "double_prefix", Case(single(renamed(w, lambda k: "model." + k)))
    yield "double_prefix_of_the_head", Case(single(renamed(w, lambda k: "model." + k if k == HEAD else k)))
    yield "triple_prefix", Case(single(renamed(w, lambda k: "model.model." + k)), says='names begin with "model\\.model\\."')
    yield "prefix_with_another_character", Case(single(renamed(w, lambda k: "model_" + k if k == HEAD else k)))
    yield "both_names_of_a_tensor", Case(single({**w, "norm.weight": w[NORM]}))
    yield "both_names_of_a_tensor_that_differ", Case(
        single({**w, "norm.weight": other(NORM, 8)}), te=REFUSE,
        says="norm.weight.*model.norm.weight.*both|model.norm.weight.*norm.weight.*both")
    yield "both_names_of_the_head_that_differ", Case(
        single({**w, "model.lm_head.weight": other(HEAD, 24, 8)}), te=REFUSE, says="model.lm_head.weight.*both|both.*model")
    yield "upper_case_names", Case(single(renamed(w, str.upper)), says="MODEL.EMBED_TOKENS.WEIGHT")
    yield "slashes_in_names", Case(single(renamed(w, lambda k: k.replace(".", "/"))), says="model/embed_tokens/weight")
    yield "zeros_in_layer_numbers", Case(single(renamed(w, lambda k: k.replace("layers.0.", "layers.00."))),
                                         says="model.layers.00.")
    yield "layers_from_one", Case(single(renamed(w, lambda k: k.replace("layers.1.", "layers.2.").replace(
        "layers.0.", "layers.1."))), says="model.layers.0.*is in none")
    yield "names_of_meta", Case(single(renamed(w, lambda k: k.replace("model.", "").replace(
        "self_attn.q_proj", "attention.wq").replace("embed_tokens", "tok_embeddings").replace(
            "lm_head", "output"))), says="Meta")
    yield "names_of_gguf", Case(single(renamed(w, lambda k: k.replace("model.layers", "blk").replace(
        "model.embed_tokens", "token_embd").replace("self_attn.q_proj", "attn_q"))), says="GGUF")
    yield "names_of_an_adapter", Case(single({
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": tensor("a", 2, 8),
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": tensor("b", 8, 2)}), says="LoRA")
    yield "names_of_unmerged_lora", Case(single(renamed(w, lambda k: "base_model.model." + (
        k.replace("q_proj", "q_proj.base_layer")))), says="base_model.model|LoRA|PEFT")
    yield "fused_qkv", Case(single({**without(w, *(k for k in w if "q_proj" in k)),
                                    "model.layers.0.self_attn.qkv_proj.weight": tensor("qkv", 16, 8),
                                    "model.layers.1.self_attn.qkv_proj.weight": tensor("qkv1", 16, 8)}), says="qkv_proj")


def surplus_and_absent_cases():
    w = weights()
    inv = {"model.layers.%d.self_attn.rotary_emb.inv_freq" % i: tensor("inv", 2) for i in range(2)}
    yield "surplus", Case(single({**w, "some.thing": tensor("some.thing", 3)}))
    yield "surplus_inv_freq", Case(single({**w, **inv}))
    yield "surplus_inv_freq_of_the_model", Case(single({**w, "model.rotary_emb.inv_freq": tensor("inv", 2)}))
    yield "surplus_position_ids", Case(single({**w, "model.position_ids": tensor("p", 1, 4, dtype="I64")}))
    yield "surplus_scalar", Case(single({**w, "step": Tensor([], [3.0])}))
    yield "surplus_bool", Case(single({**w, "model.mask": tensor("m", 4, dtype="BOOL")}))
    yield "surplus_float8", Case(single({**w, "model.x": tensor("x", 4, dtype="F8_E4M3")}))
    yield "surplus_empty", Case(single({**w, "model.x": tensor("x", 0, 5)}))
    yield "surplus_of_nine_dimensions", Case(single({**w, "model.x": tensor("x", 1, 1, 1, 1, 1, 1, 1, 1, 2)}))
    yield "surplus_head_of_a_classifier", Case(single({**w, "score.weight": tensor("s", 2, 8)}))
    yield "surplus_lora", Case(single({**w, Q0.replace("weight", "lora_A.weight"): tensor("a", 2, 8)}))
    yield "surplus_biases", Case(single(weights(biases=True)))
    yield "surplus_empty_name", Case(single({**w, "": tensor("", 2)}))
    yield "surplus_model_name", Case(single({**w, "model": tensor("model", 2)}))
    yield "more_layers_than_the_config", Case(single(weights(layers=4)))
    yield "fewer_layers_than_the_config", Case(single(weights(layers=1)), says="model.layers.1.*is in none")
    yield "absent_tensor", Case(single(without(w, UP1)), says=UP1 + ".*is in none.*model.layers.0.mlp.up_proj.weight")
    yield "absent_norm", Case(single(without(w, NORM)), says="model.norm.weight.*is in none")
    yield "absent_embedding", Case(single(without(w, EMBED)), says="model.embed_tokens.weight.*is in none")
    yield "absent_head", Case(single(without(w, HEAD)), says="lm_head.weight.*tie_word_embeddings is false")
    yield "absent_head_of_a_classifier", Case(
        single({**without(w, HEAD), "score.weight": tensor("s", 2, 8)}, architectures=["LlamaForSequenceClassification"]),
        says="lm_head.weight.*LlamaForSequenceClassification|lm_head.weight.*score.weight")
    yield "absent_biases", Case(single(w, attention_bias=True), says="self_attn.q_proj.bias.*is in none.*attention_bias")
    yield "absent_mlp_biases", Case(single(w, mlp_bias=True), says="mlp.gate_proj.bias.*is in none.*mlp_bias")
    yield "biases", Case(single(weights(biases=True), attention_bias=True))


def tied_cases():
    head, none = weights(), weights(head=False)
    same = {**none, HEAD: none[EMBED]}
    only_head = {**without(none, EMBED), HEAD: none[EMBED]}
    yield "tied", Case(single(none, tie_word_embeddings=True))
    yield "tied_with_both", Case(single(same, tie_word_embeddings=True))
    yield "tied_with_the_head_alone", Case(single(only_head, tie_word_embeddings=True))
    yield "tied_with_the_head_alone_in_shards", Case({**sharded(*halves(only_head)),
                                                      "config.json": config(tie_word_embeddings=True)})
    yield "tied_with_the_head_alone_under_the_base", Case(
        single(renamed(only_head, lambda k: "model." + k if k == HEAD else k), tie_word_embeddings=True))
    yield "tied_with_both_that_differ", Case(single(head, tie_word_embeddings=True), te=REFUSE,
                                             says="is tied to model.embed_tokens.weight.*but they differ")
    yield "tied_with_both_of_two_dtypes", Case(single({**same, HEAD: same[HEAD].to("BF16")}, tie_word_embeddings=True))
    yield "tied_with_both_of_two_shapes", Case(
        single({**none, HEAD: tensor(HEAD, 25, 8)}, tie_word_embeddings=True), says="lm_head.weight.*shape")
    yield "tied_with_neither", Case(single(without(none, EMBED), tie_word_embeddings=True), says="embed_tokens.*is in none")
    yield "tied_in_bin_with_one_storage", Case({"config.json": config(tie_word_embeddings=True),
                                                BIN: torch_zip(same, shared=((EMBED, HEAD),))})
    yield "untied_with_equal_values", Case(single(same))
    yield "untied_in_bin_with_one_storage", Case({"config.json": config(), BIN: torch_zip(same, shared=((EMBED, HEAD),))})
    yield "untied_with_the_head_alone", Case(single(only_head), says="model.embed_tokens.weight.*is in none")
    yield "tie_absent_from_the_config", Case(single(head, tie_word_embeddings="absent"))
    yield "tie_absent_and_no_head", Case(single(none, tie_word_embeddings="absent"), says="tie_word_embeddings is false")
    yield "tie_null", Case(single(head, tie_word_embeddings=None), te=LOADS)


def shape_cases():
    w = weights()
    k0 = "model.layers.0.self_attn.k_proj.weight"
    yield "larger_vocabulary_in_the_file", Case(single({**w, EMBED: tensor(EMBED, 32, 8), HEAD: tensor(HEAD, 32, 8)}),
                                                says=r"shape \[32, 8\]; the config says \[24, 8\].*vocab_size")
    yield "larger_vocabulary_of_the_embedding", Case(single({**w, EMBED: tensor(EMBED, 32, 8)}), says=r"shape \[32, 8\]")
    yield "smaller_vocabulary_in_the_file", Case(single({**w, EMBED: tensor(EMBED, 16, 8)}), says=r"shape \[16, 8\]")
    yield "wrong_shape", Case(single({**w, k0: tensor(k0, 8, 8)}), says=k0 + r" has shape \[8, 8\]; the config says \[4, 8\]")
    yield "transposed", Case(single({**w, UP1: w[UP1].transposed()}), says=UP1 + r" has shape \[8, 12\].*transposed")
    yield "transposed_square", Case(single({**w, Q0: w[Q0].transposed()}))
    yield "flat", Case(single({**w, UP1: w[UP1].reshaped(96)}), says=UP1 + r" has shape \[96\]")
    yield "norm_of_two_dimensions", Case(single({**w, NORM: w[NORM].reshaped(8, 1)}), says=r"has shape \[8, 1\]")
    yield "matrix_of_three_dimensions", Case(single({**w, UP1: w[UP1].reshaped(1, 12, 8)}), says=r"has shape \[1, 12, 8\]")
    yield "norm_without_dimensions", Case(single({**w, NORM: Tensor([], [1.0])}), says=r"has shape \[\]")
    yield "norm_of_one", Case(single({**w, NORM: Tensor([1], [1.0])}), says=r"has shape \[1\]")
    yield "norm_of_none", Case(single({**w, NORM: Tensor([0], [])}), says=r"has shape \[0\]")


def dtype_cases():
    w = weights()
    for dtype in ("F16", "BF16", "F64"):
        yield "dtype_" + dtype, Case(single({k: v.to(dtype) for k, v in w.items()}))
    kinds = ["F32", "F16", "BF16", "F64"]
    yield "dtype_mixed", Case(single({k: v.to(kinds[i % 4]) for i, (k, v) in enumerate(w.items())}))
    for dtype in ("I32", "I8", "BOOL", "F8_E4M3"):
        yield "dtype_of_one_" + dtype, Case(single({**w, UP1: w[UP1].to(dtype)}), te=REFUSE,
                                            says=UP1 + ".*stored as " + dtype)
    yield "dtype_bin_mixed", Case({"config.json": config(), BIN: torch_zip(
        {k: v.to(kinds[i % 4]) for i, (k, v) in enumerate(w.items())})})


def config_cases():
    w = weights()
    yield "architectures_base", Case(single(w, architectures=["LlamaModel"]))
    yield "architectures_classifier", Case(single(w, architectures=["LlamaForSequenceClassification"]))
    yield "architectures_empty", Case(single(w, architectures=[]))
    yield "architectures_null", Case(single(w, architectures=None))
    yield "architectures_absent", Case(single(w, architectures="absent"))
    yield "architectures_old_name", Case(single(w, architectures=["LLaMAForCausalLM"]))
    yield "architectures_of_another", Case(single(w, architectures=["MyLlamaForCausalLM"]), te=REFUSE,
                                           says="architectures has \"MyLlamaForCausalLM\"")
    yield "model_type_absent", Case(single(w, model_type="absent"))
    yield "model_type_and_architectures_absent", Case(
        single(w, model_type="absent", architectures="absent"), te=REFUSE, says="architectures and model_type are both missing")
    yield "model_type_of_another", Case(single(w, model_type="mistral"), te=REFUSE, says="model_type is 'mistral'")
    yield "configuration_files", Case(
        {**single(w, configuration_files=["config.4.0.0.json"], rms_norm_eps=0.5), "config.4.0.0.json": config()},
        te=REFUSE, says="configuration_files")
    yield "quantization_config", Case(single(w, quantization_config={"quant_method": "fp8"}), te=REFUSE,
                                      says="quantization_config")
    yield "unknown_keys", Case(single(w, some_key={"deep": [1, None]}, _name_or_path="x", transformers_version="9.9.9"))
    yield "no_config", Case({SAFE: st(w)}, says="no config.json")
    yield "adapter_beside_the_weights", Case(
        {**single(w), "adapter_config.json": b'{"peft_type": "LORA", "base_model_name_or_path": "acme/tiny"}'})


def cases():
    out = {}
    for group in (file_cases, index_cases, name_cases, surplus_and_absent_cases, tied_cases, shape_cases, dtype_cases,
                  config_cases):
        for name, case in group():
            assert name not in out, name
            out[name] = case
    return out


def write(root, files):
    for name, content in files.items():
        path = os.path.join(root, name)
        os.makedirs(path if content is None else os.path.dirname(path), exist_ok=True)
        if isinstance(content, tuple):
            os.symlink(content[1], path)
        elif content is not None:
            with open(path, "wb") as f:
                f.write(content)


def main():
    out = sys.argv[1]
    made = cases()
    for name, case in made.items():
        write(os.path.join(out, name), case.files)
    print("%d directories in %s" % (len(made), out))


if __name__ == "__main__":
    main()
