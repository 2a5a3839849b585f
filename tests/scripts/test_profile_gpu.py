"""Timing steps of a layer stack on the CPU, their fit, and the log of a real engine."""

import gzip
import importlib
import importlib.util
import json
import math
import os

import numpy as np
import pandas as pd
import pytest

from envs.hardware import CostModel
from envs.hardware.calibration import read_calibration, write_calibration
from envs.hardware.fitting.law import Fit
from envs.hardware.fitting.rows import calibration_row
from envs.hardware.fitting.steps import REQUIRED, fit_steps, read_steps
from scripts.cli import main
from scripts.profiling.grid import Grid, Point
from scripts.profiling.plan import make_plan
from scripts.profiling.run_log import Served, summarise
from scripts.profiling.shapes import find_shape, layer_params
from scripts.profiling.workload import Load, poisson

torch = pytest.importorskip("torch", reason="torch is absent: the extra `agents` has it")
steps = importlib.import_module("scripts.profiling.steps")

TINY = {
    "num_hidden_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "vocab_size": 97,
}
GRID = {
    "decode-batches": "1 4 16",
    "contexts": "8 64 256",
    "chunks": "4 16 64",
    "histories": "0 64",
    "mixed-batches": "2 8",
    "mixed-contexts": "16 64",
    "mixed-chunks": "16 64",
}


SETTINGS = steps.Settings(
    gpu="cpu",
    precision="fp32",
    layers=0,
    graphs="never",
    warmup=1,
    repeats=3,
    budget_s=1.0,
    settle_s=0.0,
    seed=0,
)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(TINY), encoding="utf-8")
    return path


@pytest.fixture
def words(config, tmp_path):
    found = ["profile-gpu", "--model", str(config), "--device", "cpu", "--repeats", "3"]
    found += ["--warmup", "1", "-o", str(tmp_path / "steps.csv")]
    for name, values in GRID.items():
        found += [f"--{name}", *values.split()]
    return found


def stack_of(config, layers=2, **changes):
    from scripts.profiling.stack import Stack

    shape = find_shape(str(config))
    options = {"cache_tokens": 64, "positions": 40, "dtype": torch.float32} | changes
    return Stack(shape, layers, device=torch.device("cpu"), **options)


def logits(stack, tokens, point):
    return stack.logits(stack.inputs(point, tokens))


# The layer stack


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


# Grid, shape and memory


def test_a_point_counts_what_the_cost_model_reads():
    point = Point(3, 100, 16, 32)
    assert (point.kind, point.tokens, point.sampled) == ("mixed", 19, 4)
    assert (point.context_tokens, point.attention_work) == (300, 16 * 32 + 16 * 17 / 2)
    assert (point.cached_tokens, point.longest) == (348, 100)
    assert str(point) == "3 decodes of context 100 + chunk 16 after 32"


def test_the_grid_is_shuffled_alike_for_a_seed():
    values = {name.replace("-", "_"): [*map(int, v.split())] for name, v in GRID.items()}
    grid = Grid(**values)
    assert grid.points(1) == grid.points(1) != grid.points(2)
    assert len(grid.points(1)) == 9 + 6 + 8
    with pytest.raises(ValueError, match="--chunks: 0 must be at least 1"):
        Grid(**(values | {"chunks": [0]})).points(0)
    with pytest.raises(ValueError, match="nothing to time"):
        Grid(**dict.fromkeys(values, ())).points(0)


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


# The command


def test_profile_then_fit_gives_a_cost_model(words, tmp_path, capsys):
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(kind in shown for kind in ("decode", "prefill", "mixed"))
    path = tmp_path / "steps.csv"
    rows = pd.read_csv(path)
    assert len(rows) == 23 and (rows["seconds"] > 0).all()
    assert (rows["p10_s"] <= rows["seconds"]).all() and (rows["seconds"] <= rows["p90_s"]).all()
    notes = json.loads((tmp_path / "steps.json").read_text())
    assert notes["identity"]["layers_timed"] == 4 and notes["attention"] == "lower_right"
    assert notes["clocks"] and notes["date"] and "whole steps" in notes["how"]

    (fit,) = fit_steps([path], seed=0)
    assert fit.cost.name == "tiny/cpu/tp1/torch/fp32" and set(fit.errors) == {
        "prefill",
        "decode",
        "mixed",
    }
    coefficients = {k: v for k, v in vars(fit.cost).items() if k.endswith("_s") and v is not None}
    assert all(math.isfinite(value) for value in coefficients.values())
    assert fit.cost.weights_s + fit.cost.token_s > 0
    assert (fit.cost.fit_seqs, fit.cost.fit_context, fit.cost.points) == (16, 256, 23)
    table = tmp_path / "calibration.csv"
    write_calibration(table, [calibration_row(fit)])
    ((cost, row),) = read_calibration(table)
    assert cost.tables(16, 64).decode_ps.min() > 0 and row["dataset"] == "steps"


def test_a_run_is_continued(words, tmp_path, capsys):
    path = tmp_path / "steps.csv"
    assert main(words) == 0
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]) + lines[-1][:12])  # one row lost, one torn
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["measured"], told["held"]) == (2, 21)
    assert path.read_text().startswith("".join(lines[:-2]))
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measured"] == 0


def test_rows_of_other_settings_are_not_mixed(words, tmp_path, capsys):
    assert main(words) == 0
    assert main([*words, "--layers", "2"]) == 2
    assert "timed with another layers_timed" in capsys.readouterr().err
    assert main([*words, "--layers", "2", "--overwrite", "--dtype", "bf16"]) == 0
    assert "2 of 4 layers were timed and scaled" in capsys.readouterr().out
    (tmp_path / "steps.json").unlink()
    assert main(words) == 2
    assert "nobody knows how it was timed" in capsys.readouterr().err


def test_an_interrupted_run_keeps_its_rows(words, tmp_path, monkeypatch):
    timed, calls = steps._time, []

    def interrupt(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return timed(*args)

    monkeypatch.setattr(steps, "_time", interrupt)
    assert main(words) == 130
    assert len(pd.read_csv(tmp_path / "steps.csv")) == 4
    assert json.loads((tmp_path / "steps.json").read_text())["clocks"]


def test_a_step_without_memory_is_left_out(words, monkeypatch, capsys):
    timed = steps._time

    def fail(stack, point, *rest):
        if point.decode_seqs == 16:
            raise torch.OutOfMemoryError("no room")
        return timed(stack, point, *rest)

    monkeypatch.setattr(steps, "_time", fail)
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["measured"] == 20 and set(told["skipped"].values()) == {"out of memory"}


def test_layers_are_scaled_to_the_depth(config, monkeypatch):
    from scripts.profiling import steps
    from scripts.profiling.clock import Timing

    stack = stack_of(config, layers=1)
    seconds = iter([3.0, 0.5])
    monkeypatch.setattr(steps, "measure", lambda *_: Timing(*([next(seconds)] * 3), repeats=3))
    timing = steps._time(stack, Point(1, 8, 0, 0), "never", SETTINGS)
    assert timing.median_s == 4 * 3.0 + 0.5


@pytest.mark.parametrize(("graphs", "recorded"), [("never", 0), ("decode", 1), ("all", 3)])
def test_which_steps_are_replayed_as_graphs(graphs, recorded, config, monkeypatch):
    stack, seen = stack_of(config, layers=4), []
    monkeypatch.setattr(steps, "graphed", lambda run: seen.append(run) or run)
    for point in (Point(2, 8, 0, 0), Point(0, 0, 4, 4), Point(1, 8, 4, 0)):
        assert steps._time(stack, point, graphs, SETTINGS).median_s > 0
    assert len(seen) == recorded


def test_time_is_taken_of_the_call_itself():
    import time

    from scripts.profiling.clock import measure

    timing = measure(lambda: time.sleep(0.01), torch.device("cpu"), 1, 5)
    assert 0.009 < timing.p10_s <= timing.median_s <= timing.p90_s and timing.repeats == 5
    assert measure(lambda: time.sleep(0.01), torch.device("cpu"), 1, 99, 0.02).repeats < 9


# The fit of a file of steps


def written(path, gpu="A40", change=None):
    """Steps of a known law, on the default grid's corners."""
    law = CostModel(
        "law", "Llama-3.1-8B", gpu, weights_s=9e-3, token_s=60e-6, linear_s=1e-6, context_s=60e-9,
        mixed_context_s=90e-9, attention_s=2e-10, decode_sequence_s=5e-6, sharpness=4,
    )  # fmt: skip
    points = [Point(b, c, 0, 0) for b in (1, 16, 256) for c in (128, 1024, 4096)]
    points += [Point(0, 0, n, h) for n in (16, 128, 1024, 4096) for h in (0, 2048)]
    points += [Point(b, 1024, n, 0) for b in (8, 64) for n in (64, 256, 1024)]
    rows = []
    for p in points:
        step = (p.decode_seqs, p.context_tokens, p.chunk, p.attention_work)
        seconds = law.step_time(*step)
        rows.append(("Llama-3.1-8B", gpu, 1, "torch", "bf16", *step, seconds))
    table = pd.DataFrame(rows, columns=list(REQUIRED))
    if change is not None:
        change(table)
    table.to_csv(path, index=False)
    return law


def test_a_known_law_is_found_again_and_put_into_the_table(tmp_path, capsys, monkeypatch):
    found = []
    monkeypatch.setattr(
        "scripts.fit_cost_model.fit_steps",
        lambda *given: found or found.extend(fit_steps(*given)) or found,
    )
    path, out = tmp_path / "steps.csv", tmp_path / "tables"
    law = written(path)
    words = ["fit-cost-model", "--steps", str(path), "-o", str(out)]
    assert main([*words, "--json"]) == 0
    families = json.loads(capsys.readouterr().out)["families"]
    assert {row["step"] for row in families if row["family"] == "steps"} == {
        "prefill",
        "decode",
        "mixed",
    }
    before = len(read_calibration())
    table = read_calibration(out / "calibration.csv")
    assert len(table) == before + 1
    cost = table[-1][0]
    assert cost.error < 0.02 and cost.source == "steps of steps.csv"
    for step in ((64, 64 * 2048), (0, 0, 2048, 2048 * 2049 / 2), (16, 16_384, 512, 512 * 513 / 2)):
        assert cost.step_time(*step) == pytest.approx(law.step_time(*step), rel=0.03)
    assert (cost.fit_seqs, cost.fit_tokens, cost.fit_context) == (256, 4096, 6144)
    assert main(words) == 0  # the same pair again replaces its row
    assert len(read_calibration(out / "calibration.csv")) == before + 1
    assert "(replaced)" in capsys.readouterr().err


def test_a_bad_fit_is_left_out(tmp_path, capsys, monkeypatch):
    cost = CostModel("m/g", "m", "g")
    bad = Fit(cost, "steps", "", {"decode": np.array([0.1, -0.3])})
    monkeypatch.setattr("scripts.fit_cost_model.fit_steps", lambda *_: [bad])
    words = ["fit-cost-model", "--steps", "steps.csv", "-o", str(tmp_path)]
    assert main(words) == 1
    assert "refused, held-out error 20%: m/g" in capsys.readouterr().err
    assert len(read_calibration(tmp_path / "calibration.csv")) == len(read_calibration())
    assert main([*words, "--max-error", "0.3"]) == 0
    assert len(read_calibration(tmp_path / "calibration.csv")) == len(read_calibration()) + 1
    assert "not in the catalogue" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("seconds", 0, "line 3: seconds"),
        ("decode_seqs", -1, "line 3: decode_seqs"),
        ("prefill_tokens", "x", "line 3: prefill_tokens"),
        ("tensor_parallel", 0, "line 3: tensor_parallel"),
    ],
)
def test_faulty_rows_are_named(column, value, told, tmp_path):
    path = tmp_path / "steps.csv"

    def spoil(table):
        table[column] = table[column].astype(object)
        table.loc[1, column] = value

    written(path, change=spoil)
    with pytest.raises(ValueError, match=told):
        read_steps(path)


def test_faulty_files_are_named(tmp_path, capsys):
    path = tmp_path / "steps.csv"
    written(path)
    pd.read_csv(path).drop(columns="seconds").to_csv(path, index=False)
    with pytest.raises(ValueError, match="columns seconds are missing"):
        read_steps(path)
    written(path)
    table = pd.read_csv(path)
    table[table["prefill_tokens"] == 0].to_csv(path, index=False)
    assert main(["fit-cost-model", "--steps", str(path), "-o", str(tmp_path)]) == 2
    assert "0 prefill steps" in capsys.readouterr().err
    assert main(["fit-cost-model"]) == 2


# A real engine


def test_a_load_is_poisson_and_within_its_limits():
    load = Load(rate=5.0, requests=4000, prompt_tokens=200, output_tokens=50, max_tokens=512)
    drawn = poisson(load, seed=3)
    assert drawn.arrival_s[-1] == pytest.approx(800, rel=0.05)
    assert drawn.prompt_tokens.max() <= 384 and drawn.output_tokens.max() <= 128
    assert drawn.output_tokens.mean() == pytest.approx(50, rel=0.1)
    assert (poisson(load, seed=3).prompt_tokens == drawn.prompt_tokens).all()
    with pytest.raises(ValueError, match="--rate must be more than 0"):
        poisson(Load(0.0, 1, 1, 1, 64), 0)


def test_a_run_is_summed_up():
    served = [
        Served("a", 10, 5, 0.0, 1.0, 1.0, 1.5, 3.5),
        Served("b", 10, 1, 1.0, 2.0, 2.0, 2.5, 2.5),
    ]
    told = summarise(served, asked=3, started=1.0)
    assert (told["requests"], told["served"], told["mean_ttft_s"]) == (3, 2, 0.5)
    assert (told["mean_tpot_s"], told["makespan_s"]) == (0.5, 2.5)
    assert told["output_tokens_per_s"] == 6 / 2.5


SERVE = ["--engine", "transformers", "--rate", "400", "--requests", "12", "--prompt-tokens", "40"]
SERVE += ["--output-tokens", "20", "--max-tokens", "128", "--max-num-seqs", "8"]
SERVE += ["--max-batched-tokens", "64", "--block-size", "16", "--kv-blocks"]
has_transformers = importlib.util.find_spec("transformers") is not None


@pytest.mark.skipif(has_transformers, reason="tells what happens without transformers")
def test_without_transformers_it_says_how_to_get_it(words, tmp_path, capsys):
    assert main([*words[:-2], "-o", str(tmp_path / "run"), *SERVE, "64"]) == 2
    assert "pip install 'servegym[transformers]'" in capsys.readouterr().err


@pytest.mark.skipif(not has_transformers, reason="transformers is absent: servegym[transformers]")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("blocks", ["64", "12"])
def test_a_served_run_is_logged(blocks, config, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["profile-gpu", "--model", str(config), "--device", "cpu", "-o", str(out), *SERVE]
    assert main([*words, blocks]) == 0
    with gzip.open(out / "requests.jsonl.gz", "rt") as file:
        rows = pd.DataFrame(map(json.loads, file))
    drawn = poisson(Load(400.0, 12, 40, 20, 128), seed=0)
    assert rows["input_toks"].tolist() == drawn.prompt_tokens.tolist()
    assert rows["output_toks"].tolist() == drawn.output_tokens.tolist()
    ordered = rows[["queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts"]]
    assert (ordered.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    sent = rows["arrival_time"] - rows["arrival_time"][0]
    assert sent.tolist() == pytest.approx(drawn.arrival_s.tolist(), abs=1e-5)
    meta = json.loads((out / "meta.json").read_text())
    assert meta["kv_cache"]["num_gpu_blocks"] == int(blocks)
    assert meta["engine_kwargs"]["max_num_batched_tokens"] == 64
    assert (meta["preempted_requests"] > 0) == (blocks == "12")
    assert main([*words, blocks]) == 2
    assert "holds a run" in capsys.readouterr().err


@pytest.mark.skipif(not has_transformers, reason="transformers is absent: servegym[transformers]")
@pytest.mark.filterwarnings("default")
def test_the_stack_equals_llama_of_transformers(config):
    from scripts.profiling.engine import build_model, load_transformers

    stack = stack_of(config)
    cpu = torch.device("cpu")
    model = build_model(load_transformers(), stack.shape, 2, cpu, torch.float32, 0)
    weights = {"model.embed_tokens.weight": stack.embedding, "lm_head.weight": stack.output}
    for i, layer in enumerate(stack.layers):
        query, key, value = layer.project.split([32, 16, 16])
        gate, up = layer.up.chunk(2)
        parts = {"self_attn.q_proj": query, "self_attn.k_proj": key, "self_attn.v_proj": value}
        parts |= {"self_attn.o_proj": layer.out, "mlp.gate_proj": gate, "mlp.up_proj": up}
        parts |= {"mlp.down_proj": layer.down}
        weights |= {f"model.layers.{i}.{name}.weight": value for name, value in parts.items()}
    model.load_state_dict(weights, strict=False)
    tokens = torch.randint(97, (17,))
    wanted = model(tokens[None]).logits[:, -1]
    got = logits(stack, tokens, Point(0, 0, 17, 0))
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
