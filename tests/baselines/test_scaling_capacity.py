"""The load that an instance sustains, against queues whose limits are known."""

from __future__ import annotations

import time

import numpy as np
import pytest

from baselines.routing import router
from baselines.scaling import sustainable_throughput, sustained_load
from envs.hardware import CostModel
from envs.simulator import EngineConfig, simulate
from envs.workloads import RequestTable

# A prompt of any length takes 0.1 s, alone in its step; answers are that one token.
SERVER = EngineConfig(
    CostModel(name="server", model="Llama-2-7B", gpu="A10G", overhead_s=0.1),
    kv_capacity_tokens=10_000,
    max_num_seqs=1,
)


def test_a_single_server_sustains_what_queueing_theory_says() -> None:
    # M/D/1 with service 0.1 s. The wait exceeds x services with a probability that tends to
    # (1 - rho) / (rho e^k - 1) e^(-k x) with rho (e^k - 1) = k: 5 % at x = 4 and rho = 0.69.
    load = sustained_load(SERVER, [[100, 1]], ttft_s=60.0)
    assert load.requests_per_s == pytest.approx(10.0, rel=0.04)
    tight = sustained_load(SERVER, [[100, 1]], ttft_s=0.5)
    assert tight.requests_per_s == pytest.approx(6.9, rel=0.05)
    assert 0.4 < tight.ttft_s <= 0.5
    assert tight.prompt_tokens_per_s == pytest.approx(100 * tight.requests_per_s)
    assert tight.tokens_per_s == pytest.approx(101 * tight.requests_per_s)
    assert sustainable_throughput(SERVER, [[100, 1]], ttft_s=0.5) == tight.tokens_per_s


def test_sequences_in_service_bound_the_rate() -> None:
    # 8 sequences of 101 tokens at 20 ms a step whatever the batch: 8 / 2.02 s.
    cost = CostModel(name="flat", model="Llama-2-7B", gpu="A10G", overhead_s=0.02)
    engine = EngineConfig(
        cost, 10_000, max_num_seqs=8, batching="chunked", max_batched_tokens=4_096
    )
    load = sustained_load(engine, [[50, 101]], ttft_s=30.0)
    assert load.requests_per_s == pytest.approx(8 / 2.02, rel=0.06)
    assert sustained_load(engine, [[50, 101]], ttft_s=30.0) is load  # cached


def test_the_load_found_is_served_and_a_larger_one_is_not() -> None:
    cost = CostModel(name="law", model="Llama-2-7B", gpu="A10G", overhead_s=0.02, linear_s=1e-4)
    engine = EngineConfig(cost, 50_000, model="named", region="far", batching="chunked")
    rng = np.random.default_rng(1)
    mix = np.stack([rng.integers(100, 4_000, 300), rng.integers(1, 300, 300)], axis=1)
    started = time.perf_counter()
    load = sustained_load(engine, mix, ttft_s=2.0, tbt_s=0.5)
    assert time.perf_counter() - started < 5.0
    rows = np.random.default_rng(2).integers(0, 300, 3_000)
    late = []
    for factor in (0.8, 1.3):
        gaps = np.random.default_rng(3).exponential(1.0, 3_000)
        table = RequestTable.from_columns(
            arrival_s=np.cumsum(gaps) / (factor * load.requests_per_s),
            prompt_tokens=mix[rows, 0],
            output_tokens=mix[rows, 1],
            model="named",
            region="far",
        )
        result = simulate(table, [engine], router("round_robin"))
        late.append(float(np.percentile(result.latencies()["ttft_s"], 95)))
    assert late[0] < 2.0 < late[1]
    assert sustained_load(engine, mix, ttft_s=2.0, tbt_s=0.03).tokens_per_s < load.tokens_per_s


def test_what_cannot_be_sustained_is_refused() -> None:
    with pytest.raises(ValueError, match=r"first token within 0\.1 s"):
        sustained_load(SERVER, [[100, 1]], ttft_s=0.05)
    with pytest.raises(ValueError, match="none of 1 requests fits"):
        sustained_load(SERVER, [[20_000, 1]])
    with pytest.raises(ValueError, match="prompt and output"):
        sustained_load(SERVER, [100, 1])
    with pytest.raises(ValueError, match="percent = 0"):
        sustained_load(SERVER, [[100, 1]], percent=0)
    # A request that never fits is left out of the mix.
    load = sustained_load(SERVER, [[100, 1], [20_000, 1]], ttft_s=0.5)
    assert load.prompt_tokens_per_s == pytest.approx(100 * load.requests_per_s)
