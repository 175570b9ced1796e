#!/usr/bin/env python3
"""Records in hugging_face.json what transformers does with each directory of make_directories.py.

By hand, with torch and transformers installed:  python3 ask_hugging_face.py
A directory counts as loaded when from_pretrained returns and no tensor was missing: what is missing is filled in at random.
Logits are those of TOKENS in float32; equal ones are stored once.
"""

import json
import os
import resource
import sys
import tempfile
import warnings

sys.dont_write_bytecode = True
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")

import torch  # noqa: E402
import transformers  # noqa: E402

import make_directories  # noqa: E402


def ask(directory, arguments):
    if not os.path.exists(os.path.join(directory, arguments.get("subfolder", ""), "config.json")):
        # transformers then makes a random model of the default sizes, 27 GB.
        return {"loads": False, "error": "no config.json"}, None
    try:
        model, info = transformers.LlamaForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True, **arguments)
    except Exception as error:  # whatever it is, it is the answer
        text = " ".join(str(error).split()).replace(directory, "DIRECTORY")
        return {"loads": False, "error": "%s: %s" % (type(error).__name__, text[:160])}, None
    out = {"loads": not info["missing_keys"]}
    for key in ("missing_keys", "unexpected_keys"):
        names = sorted(info[key])
        if names:
            out[key] = len(names)
            out["first_of_" + key] = names[0]
    if not out["loads"]:
        return out, None
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([make_directories.TOKENS])).logits[0]
    return out, [float("%.9g" % x) for x in logits.flatten().tolist()]


def main():
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))  # no case may take the machine's memory
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    answers, sets = {}, []
    with tempfile.TemporaryDirectory() as root:
        for name, case in make_directories.cases().items():
            directory = os.path.join(root, name)
            make_directories.write(directory, case.files)
            answers[name], logits = ask(directory, case.arguments)
            if logits is not None:
                if logits not in sets:
                    sets.append(logits)
                answers[name]["logits"] = sets.index(logits)
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hugging_face.json")
    with open(out, "w", encoding="utf-8") as f:
        f.write('{\n "transformers": "%s",\n "directories": {\n' % transformers.__version__)
        f.write(",\n".join("  %s: %s" % (json.dumps(k), json.dumps(v)) for k, v in answers.items()))
        f.write('\n },\n "logits": [\n')
        f.write(",\n".join("  " + json.dumps(x) for x in sets))
        f.write("\n ]\n}\n")
    print("%d directories, %d load, %d different logits" % (len(answers), sum(x["loads"] for x in answers.values()),
                                                            len(sets)))


if __name__ == "__main__":
    main()
