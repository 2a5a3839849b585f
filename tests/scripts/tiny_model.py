"""A model so small that its steps take a millisecond on the CPU."""

import json

import torch

from scripts.profiling.shapes import find_shape
from scripts.profiling.stack import Stack

TINY = {
    "num_hidden_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "vocab_size": 97,
}


def write_config(folder):
    """Its configuration file, which names it `tiny`."""
    path = folder / "tiny.json"
    path.write_text(json.dumps(TINY), encoding="utf-8")
    return path


def stack_of(config, layers=2, **changes):
    """Some of its layers, in float32 on the CPU."""
    shape = find_shape(str(config))
    options = {"cache_tokens": 64, "positions": 40, "dtype": torch.float32} | changes
    return Stack(shape, layers, device=torch.device("cpu"), **options)


def logits(stack, tokens, point):
    """What a step gives for these tokens."""
    return stack.logits(stack.inputs(point, tokens))
