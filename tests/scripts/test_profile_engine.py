"""The load and the log of a real engine, served on the CPU where transformers is there."""

import gzip
import importlib.util
import json

import pandas as pd
import pytest
import torch

from scripts.cli import main
from scripts.profiling.grid import Point
from scripts.profiling.run_log import Served, summarise
from scripts.profiling.workload import Load, poisson
from tests.scripts.tiny_model import logits, stack_of, write_config


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path)


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
def test_without_transformers_it_says_how_to_get_it(config, tmp_path, capsys):
    words = ["profile-gpu", "--model", str(config), "--device", "cpu", "-o", str(tmp_path / "run")]
    assert main([*words, *SERVE, "64"]) == 2
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
