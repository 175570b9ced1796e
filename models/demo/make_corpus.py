#!/usr/bin/env python3
"""Writes the text that the demo's model and tokenizer are made from.

usage: make_corpus.py OUT_DIR

OUT_DIR/stories.txt      one short story a line: what the model is trained on from random weights
OUT_DIR/questions.jsonl  {"text": "### Human: ...### Assistant: ..."}: what the demo fine-tunes it on
Both come from the grammar below, the same bytes on every machine (no text of anyone else is in them).
"""
import json
import os
import random
import sys

STORIES, QUESTIONS = 6000, 240

ANIMALS = {  # animal: (home, food, sound)
    "fox": ("a den under the old oak", "berries", "yelped"),
    "bear": ("a cave by the hill", "honey", "growled"),
    "owl": ("a hollow tree", "mice", "hooted"),
    "frog": ("the green pond", "flies", "croaked"),
    "rabbit": ("a burrow in the meadow", "clover", "squeaked"),
    "duck": ("a nest by the river", "bread", "quacked"),
    "mouse": ("a hole in the barn", "cheese", "squeaked"),
    "cat": ("the baker's house", "fish", "purred"),
    "dog": ("the farmer's yard", "bones", "barked"),
    "horse": ("the red stable", "apples", "neighed"),
}
NAMES = ["Mia", "Tom", "Lena", "Ben", "Ida", "Max", "Nora", "Paul", "Rosa", "Otto", "Ella", "Finn"]
TRAITS = ["small", "brave", "shy", "clever", "lazy", "kind", "hungry", "curious", "old", "young"]
COLORS = ["red", "brown", "grey", "white", "black", "golden"]
TIMES = ["One morning", "One evening", "On a rainy day", "On a sunny day", "One night", "In the winter",
         "In the spring"]
THINGS = ["a shiny key", "a blue feather", "a round stone", "a lost hat", "a little boat", "a silver bell",
          "an old map", "a warm scarf"]
PLACES = ["the forest", "the river", "the village", "the market", "the garden", "the bridge", "the mill",
          "the hill"]
MOODS = ["happy", "tired", "proud", "surprised", "glad", "calm"]
WEATHER = ["The wind was cold.", "The sun was warm.", "Snow lay on the fields.", "The sky was clear.",
           "Rain fell on the leaves.", "The moon was bright."]


def article(word):
    return "an" if word[0] in "aeiou" else "a"


def story(r):
    a, b = r.sample(sorted(ANIMALS), 2)
    na, nb = r.sample(NAMES, 2)
    trait, color = r.choice(TRAITS), r.choice(COLORS)
    home, food, sound = ANIMALS[a]
    other_home, other_food, other_sound = ANIMALS[b]
    thing, place = r.choice(THINGS), r.choice(PLACES)
    lines = [f"Once there was {article(trait)} {trait} {a} named {na}.",
             f"{na} had {color} fur and lived in {home}." if a not in ("owl", "duck", "frog")
             else f"{na} was {color} and lived in {home}.",
             f"{r.choice(TIMES)}, {na} went to {place} to look for {food}."]
    if r.random() < 0.5:
        lines.append(r.choice(WEATHER))
    kind = r.randrange(4)
    if kind == 0:
        lines += [f"There {na} found {thing}.", f"It belonged to {nb} the {b}.",
                  f"{na} carried it to {other_home} and gave it back.",
                  f"\"Thank you, {na},\" said {nb}, and they shared some {other_food}."]
    elif kind == 1:
        lines += [f"On the way {na} met {article(b)} {b} named {nb}.",
                  f"\"I am lost,\" said {nb}. \"I want to go back to {other_home}.\"",
                  f"{na} knew the way and walked with {nb} until they were there.",
                  f"{nb} {other_sound} and was {r.choice(MOODS)}."]
    elif kind == 2:
        lines += [f"But {na} found no {food} at all.",
                  f"{na} {sound} and sat down.",
                  f"Then {nb} the {b} came and gave {na} some {other_food}.",
                  f"It was not {food}, but it was good."]
    else:
        lines += [f"{nb} the {b} was there, too.",
                  f"\"Let us play,\" said {nb}, and they played with {thing} until it was dark.",
                  f"Then {na} went home to {home} and slept."]
    lines.append(r.choice([f"From that day on {na} and {nb} were friends.",
                           f"That night {na} was very {r.choice(MOODS)}.",
                           f"And {na} never forgot that day."]))
    return " ".join(lines)


def question(r):
    a = r.choice(sorted(ANIMALS))
    home, food, sound = ANIMALS[a]
    name = r.choice(NAMES)
    kind = r.randrange(4)
    if kind == 0:
        q, s = f"Where does the {a} live?", f"The {a} lives in {home}."
    elif kind == 1:
        q, s = f"What does the {a} eat?", f"The {a} likes {food} best."
    elif kind == 2:
        q, s = f"What did {name} the {a} look for?", f"{name} the {a} went out to look for {food}."
    else:
        q, s = f"What did the {a} do?", f"The {a} {sound}, and then it went home to {home}."
    return f"### Human: {q}### Assistant: {s}"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.makedirs(sys.argv[1], exist_ok=True)
    r = random.Random(7)
    with open(os.path.join(sys.argv[1], "stories.txt"), "w", encoding="utf-8", newline="\n") as f:
        for _ in range(STORIES):
            f.write(story(r) + "\n")
    with open(os.path.join(sys.argv[1], "questions.jsonl"), "w", encoding="utf-8", newline="\n") as f:
        for _ in range(QUESTIONS):
            f.write(json.dumps({"text": question(r)}) + "\n")


main()
