"""A small text task whose answer lengths follow from the words, and settings that learn it fast."""

from pathlib import Path

import numpy as np
import pandas as pd

from envs.run_folder import RunFolder
from envs.workloads.prompts import read_prompts, split
from predictors.response_length import DataNote, Examples, RunSettings, Settings, train

LENGTHS = {"brief": 6, "plain": 40, "detailed": 200, "endless": 600}
TOPICS = ("rivers", "clocks", "bread", "glass", "moths", "harbours", "wool", "chess")
SMALL = {
    "width": 16,
    "layers": 1,
    "attention_heads": 2,
    "hash_buckets": 512,
    "first_words": 6,
    "last_words": 6,
    "dropout": 0.1,
    "epochs": 8,
    "patience": 8,
    "batch_size": 32,
    "learning_rate": 1e-2,
}


def frame(rows=480, seed=0):
    rng = np.random.default_rng(seed)
    kinds = rng.choice(list(LENGTHS), rows)
    topics = rng.choice(TOPICS, rows)
    length = np.maximum(1, np.rint([LENGTHS[k] for k in kinds] * rng.lognormal(0, 0.15, rows)))
    return pd.DataFrame(
        {
            "prompt": [
                f"Give a {kind} account of {topic}, number {i}."
                for i, (kind, topic) in enumerate(zip(kinds, topics, strict=True))
            ],
            "response_tokens": length.astype(int),
            "task": ["essay" if t < "h" else "report" for t in topics],
            "source": "tiny",
        }
    )


def write(folder: Path, rows=480, seed=0):
    path = folder / "prompts.parquet"
    frame(rows, seed).to_parquet(path)
    return path


def examples(folder: Path, rows=480):
    prompts = read_prompts(write(folder, rows))
    return {k: Examples.from_prompts(prompts.take(at)) for k, at in split(prompts).items()}


def run_small(folder: Path, parts, changes=None, **options):
    settings = Settings(**(SMALL | (changes or {})))
    run = RunFolder(folder)
    run.make()
    config = RunSettings(settings=settings, data=DataNote(name="tiny"))
    config.write(folder)
    return train(config, parts["train"], parts["validation"], run, **options)
