"""The layers whose steps are timed, the grid of the steps, and what fits the memory."""

import json
import math
import os

import pytest
import torch

from scripts.profiling.grid import Grid, Point
from scripts.profiling.plan import make_plan
from scripts.profiling.shapes import find_shape, layer_params
from tests.scripts.tiny_model import TINY, logits, stack_of, write_config

VALUES = {
    "decode_batches": (1, 4, 16),
    "contexts": (8, 64, 256),
    "chunks": (4, 16, 64),
    "histories": (0, 64),
    "mixed_batches": (2, 8),
    "mixed_contexts": (16, 64),
    "mixed_chunks": (16, 64),
}


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path)


def test_a_decode_after_prefill_equals_the_whole(config):
    stack = stack_of(config)
    tokens = torch.randint(97, (21,))
    whole = logits(stack, tokens, Point(0, 0, 21, 0))
    logits(stack, tokens[:20], Point(0, 0, 20, 0))
    decoded = logits(stack, tokens[20:], Point(1, 21, 0, 0))
    torch.testing.assert_close(decoded, whole, rtol=1e-4, atol=1e-4)


def test_chunked_prefill_equals_the_whole(config):
    stack = stack_of(config)
    tokens = torch.randint(97, (24,))
    whole = logits(stack, tokens, Point(0, 0, 24, 0))
    for first, count in ((0, 7), (7, 1), (8, 16)):
        last = logits(stack, tokens[first : first + count], Point(0, 0, count, first))
    torch.testing.assert_close(last, whole, rtol=1e-4, atol=1e-4)


def test_a_mixed_step_equals_its_parts(config):
    stack = stack_of(config)
    held, fresh = torch.randint(97, (11,)), torch.randint(97, (9,))
    decoded = logits(stack, held, Point(0, 0, 11, 0))
    prefilled = logits(stack, fresh, Point(0, 0, 9, 0))
    logits(stack, held[:10], Point(0, 0, 10, 0))
    mixed = logits(stack, torch.cat([held[10:], fresh]), Point(1, 11, 9, 0))
    parts = torch.cat([decoded, prefilled])
    torch.testing.assert_close(mixed, parts, rtol=1e-4, atol=1e-4)


def test_sequences_of_a_batch_do_not_touch_each_other(config):
    stack = stack_of(config)
    both = logits(stack, torch.tensor([5, 7]), Point(2, 16, 0, 0))
    other = logits(stack, torch.tensor([5, 8]), Point(2, 16, 0, 0))
    torch.testing.assert_close(both[0], other[0])
    assert not torch.allclose(both[1], other[1])


def test_attention_and_rotation_by_hand(config):
    """One layer against the formulas, written with loops over heads and a dense mask."""
    stack = stack_of(config, layers=1)
    shape, layer = stack.shape, stack.layers[0]
    tokens = torch.randint(97, (6,))

    def norm(x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    x = stack.embedding[tokens]
    rows = (norm(x) @ layer.project.T).view(6, -1, 8)
    angles = torch.arange(6.0)[:, None] * 500_000.0 ** -(torch.arange(0, 8, 2) / 8)

    def turn(row):
        left, right = row[:, :4], row[:, 4:]
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat([left * cosine - right * sine, right * cosine + left * sine], -1)

    outs = []
    for head in range(4):
        query, key = turn(rows[:, head]), turn(rows[:, 4 + head // 2])
        scores = (query @ key.T / 8**0.5).masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf)
        outs.append(scores.softmax(-1) @ rows[:, 6 + head // 2])
    x = x + torch.cat(outs, -1) @ layer.out.T
    gate, up = (norm(x) @ layer.up.T).chunk(2, -1)
    x = x + (torch.nn.functional.silu(gate) * up) @ layer.down.T
    wanted = norm(x[-1:]) @ stack.output.T
    got = logits(stack, tokens, Point(0, 0, 6, 0))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    assert shape.heads == 4


def test_bf16_and_both_ways_of_attention(config):
    from scripts.profiling.attention import lower_right, masked

    stack = stack_of(config, dtype=torch.bfloat16)
    assert logits(stack, torch.arange(8), Point(0, 0, 8, 4)).dtype is torch.bfloat16
    query, key = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 12, 8)
    torch.testing.assert_close(lower_right(query, key, key), masked(query, key, key))


def test_a_point_counts_what_the_cost_model_reads():
    point = Point(3, 100, 16, 32)
    assert (point.kind, point.tokens, point.sampled) == ("mixed", 19, 4)
    assert (point.context_tokens, point.attention_work) == (300, 16 * 32 + 16 * 17 / 2)
    assert (point.cached_tokens, point.longest) == (348, 100)
    assert str(point) == "3 decodes of context 100 + chunk 16 after 32"


def test_the_grid_is_shuffled_alike_for_a_seed():
    grid = Grid(**VALUES)
    assert grid.points(1) == grid.points(1) != grid.points(2)
    assert len(grid.points(1)) == 9 + 6 + 8
    with pytest.raises(ValueError, match="--chunks: 0 must be at least 1"):
        Grid(**(VALUES | {"chunks": [0]})).points(0)
    with pytest.raises(ValueError, match="nothing to time"):
        Grid(**dict.fromkeys(VALUES, ())).points(0)


def test_shapes_of_the_catalogue_have_their_stated_parameters(config):
    from scripts.profiling.shapes import end_params

    for name in ("Llama-3.1-8B", "Llama-3.1-70B"):
        shape = find_shape(name)
        assert shape.layers * layer_params(shape) + end_params(shape) == shape.params
    tiny = find_shape(str(config))
    assert (tiny.name, tiny.layers, tiny.kv_heads, tiny.ffn_matrices) == ("tiny", 4, 2, 3)


def test_other_kinds_of_models_are_refused(tmp_path, config):
    with pytest.raises(ValueError, match="Mixtral-8x7B has experts"):
        find_shape("Mixtral-8x7B")
    with pytest.raises(ValueError, match=r"config\.json"):
        find_shape("nobody-knows-1B")
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(TINY | {"hidden_size": "x"}), encoding="utf-8")
    with pytest.raises(ValueError, match="hidden_size must be there"):
        find_shape(str(bad))
    bad.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="no JSON"):
        find_shape(str(bad))


def test_steps_and_layers_that_do_not_fit_are_left_out():
    shape = find_shape("Llama-3.1-70B")
    points = [Point(1, 1024, 0, 0), Point(256, 16_384, 0, 0)]
    plan = make_plan(shape, points, 0, 140 * 10**9, 2)
    assert 30 < plan.layers < 60
    assert plan.points == points[:1] and "tokens of cache" in plan.skipped[points[1]]
    assert plan.cache_tokens == 1024
    whole = make_plan(find_shape("Llama-3.1-8B"), points[:1], 0, 140 * 10**9, 2)
    assert whole.layers == 32
    with pytest.raises(ValueError, match="0 = as many as fit"):
        make_plan(shape, points, 81, 140 * 10**9, 2)
    with pytest.raises(ValueError, match="take fewer --layers"):
        make_plan(shape, points, 80, 140 * 10**9, 2)


def test_a_device_is_found_by_its_name():
    from scripts.profiling.device import find_device, is_named

    assert is_named("NVIDIA H100 80GB HBM3", "H100-SXM-80GB")
    assert is_named("NVIDIA A100-SXM4-80GB", "A100-SXM-80GB")
    assert is_named("NVIDIA GeForce RTX 4090", "RTX-4090")
    assert not is_named("NVIDIA GeForce RTX 4090", "RTX-PRO-6000")
    assert not is_named("NVIDIA H100 PCIe", "H100-SXM-80GB")
    with pytest.raises(ValueError, match="--device"):
        find_device("toaster")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            find_device("auto")


def test_clocks_are_read_from_nvidia_smi(tmp_path, monkeypatch):
    from scripts.profiling.device import nvidia_smi

    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_smi("0", ("name",)) == {}
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 1980 MHz'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    found = nvidia_smi("0", ("name", "clocks.sm"))
    assert found == {"name": "NVIDIA H200", "clocks.sm": "1980 MHz"}
    assert nvidia_smi("0", ("name",)) == {}
