#!/usr/bin/env python3
"""Writes rules.model: a SentencePiece model with normalization rules of its own (A -> a, B -> bc, \u00e9 -> e).

Needs sentencepiece from PyPI. Usage: models/tokenizer/testdata/make_rules_model.py
"""
import pathlib
import tempfile

import sentencepiece

FOLDER = pathlib.Path(__file__).resolve().parent

with tempfile.TemporaryDirectory() as work:
    rules = pathlib.Path(work) / "rules.tsv"
    rules.write_text("41\t61\n42\t62 63\nE9\t65\n")
    text = pathlib.Path(work) / "text.txt"
    text.write_text("\n".join(["Hello world abc", "a b c d e hello", "world of cats abcd"] * 50))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(FOLDER / "rules"), vocab_size=20, minloglevel=2,
        normalization_rule_tsv=str(rules))
    (FOLDER / "rules.vocab").unlink()
