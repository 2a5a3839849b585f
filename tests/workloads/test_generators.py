from __future__ import annotations

import math

import numpy as np
import pytest

from envs.workloads import (
    HEAVY_DECODE_TOKENS,
    PROCESSES,
    arrivals,
    azure,
    describe,
    router_classes,
    router_mix,
    within,
)


def test_router_mix_reproduces_the_papers_table() -> None:
    table = router_mix(200_000, seed=3)
    heavy = table.output_tokens > HEAVY_DECODE_TOKENS
    assert abs(heavy.mean() - 0.3554) < 0.01
    assert table.output_tokens.mean() == pytest.approx(175.71, rel=0.03)
    published = {  # share of samples, mean prompt, mean decode, heavy share: Table 1
        "translation": (7351, 29.09, 61.76, 0.0918),
        "question_answering": (6988, 29.83, 334.40, 0.5818),
        "sentiment": (6564, 211.54, 142.53, 0.4101),
        "in_context_qa": (7122, 125.16, 220.02, 0.4795),
        "entity_recognition": (3304, 26.41, 64.10, 0.0871),
    }
    for name, (samples, prompt, decode, share) in published.items():
        mine = table.application.codes == table.application.names.index(name)
        assert abs(mine.mean() - samples / 31329) < 0.003
        assert table.prompt_tokens[mine].mean() == pytest.approx(prompt, rel=0.01)
        assert table.output_tokens[mine].mean() == pytest.approx(decode, rel=0.06)  # clipped
        assert abs(heavy[mine].mean() - share) < 0.018
    assert table.prompt_tokens.max() <= 1000 and table.output_tokens.max() == 2048
    assert describe(table)["rate"] == pytest.approx(20.0, rel=0.01)


def test_router_mix_depends_on_the_seed_alone() -> None:
    assert router_mix(100, seed=1) == router_mix(100, seed=1) != router_mix(100, seed=2)
    assert router_mix(1000, max_output_tokens=64).output_tokens.max() == 64


@pytest.mark.parametrize(
    ("scenario", "first", "second"),
    [
        ("LH+HL", {"LH", "HL"}, {"LH", "HL"}),
        ("all", {"LL", "LH", "HL", "HH"}, {"LL", "LH", "HL", "HH"}),
        ("LH then HL", {"LH"}, {"HL"}),
        ("HL then LH", {"HL"}, {"LH"}),
    ],
)
def test_router_classes(scenario: str, first: set[str], second: set[str]) -> None:
    table = router_classes(scenario, 1000, seed=5)  # type: ignore[arg-type]
    names = table.application.values()
    assert set(names[:500]) == first and set(names[500:]) == second
    heavy_prompt, heavy_decode = table.prompt_tokens >= 1560, table.output_tokens > 147
    assert (heavy_prompt == np.array([name[0] == "H" for name in names])).all()
    assert (heavy_decode == np.array([name[1] == "H" for name in names])).all()


@pytest.mark.parametrize(("name", "cv"), [("poisson", 1.0), ("gamma", 3.0), ("uniform", 0.0)])
def test_arrival_rate_and_burstiness(name: str, cv: float) -> None:
    extra = {"cv": cv} if name == "gamma" else {}
    times = arrivals(name, 5.0, 200_000, np.random.default_rng(1), **extra)
    gaps = np.diff(times)
    assert len(times) / times[-1] == pytest.approx(5.0, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, abs=0.05)


def test_mmpp_keeps_the_mean_rate_and_bursts() -> None:
    times = arrivals("mmpp", 10.0, 300_000, np.random.default_rng(2), burst_factor=5.0)
    assert len(times) / times[-1] == pytest.approx(10.0, rel=0.1)
    assert (np.diff(times) >= 0).all()
    counts = np.bincount(times.astype(int))
    assert counts.var() / counts.mean() > 5


@pytest.mark.parametrize("name", PROCESSES)
def test_arrivals_within_a_duration(name: str) -> None:
    extra = {"mean_burst_s": 0.5} if name == "mmpp" else {}
    counts = [
        len(within(name, 4.0, 50.0, np.random.default_rng(seed), **extra)) for seed in range(100)
    ]
    assert np.mean(counts) == pytest.approx(200, rel=0.1)
    times = within(name, 4.0, 50.0, np.random.default_rng(0))
    assert (np.diff(times) >= 0).all() and times[0] >= 0 and times[-1] < 50


@pytest.mark.parametrize(
    ("trace", "rate", "cv", "prompt", "output"),
    [("conversation", 5.53, 1.09, 1154.7, 211.1), ("code", 2.57, 13.15, 2047.8, 27.9)],
)
def test_azure_quantiles(trace: str, rate: float, cv: float, prompt: float, output: float) -> None:
    seen = describe(azure(trace, 200_000, seed=4))  # type: ignore[arg-type]
    assert seen["rate"] == pytest.approx(rate, rel=0.06)
    assert seen["gap_cv"] == pytest.approx(cv, rel=0.08)
    assert seen["prompt_tokens_mean"] == pytest.approx(prompt, rel=0.02)
    assert seen["output_tokens_mean"] == pytest.approx(output, rel=0.02)


def test_azure_keeps_the_dependence_of_output_on_prompt() -> None:
    table = azure("conversation", 100_000)
    tenth = np.argsort(np.argsort(table.prompt_tokens, kind="stable")) // 10_000
    means = [table.output_tokens[tenth == i].mean() for i in range(10)]
    assert means[5] > 350 and means[1] < 110 and means[9] < 110  # as recorded: 412, 84, 74


def test_azure_with_another_process() -> None:
    assert describe(azure("code", 50_000, 2.0, arrivals="poisson"))["gap_cv"] == pytest.approx(
        1.0, abs=0.03
    )


def bad(function: object, *args: object, **kwargs: object) -> object:
    return pytest.param(lambda: function(*args, **kwargs))  # type: ignore[operator]


@pytest.mark.parametrize(
    "call",
    [
        bad(router_mix, 10, 0.0),
        bad(router_mix, 10, math.inf),
        bad(router_mix, 10, arrivals="tides"),
        bad(router_mix, 10, max_output_tokens=0),
        bad(router_classes, "LL+HH"),
        bad(azure, "chat"),
        bad(azure, "code", 10, -1.0),
        bad(arrivals, "mmpp", 1.0, 5, np.random.default_rng(0), burst_share=0.5),
        bad(within, "poisson", 1.0, 0.0, np.random.default_rng(0)),
    ],
)
def test_bad_parameters(call: object) -> None:
    with pytest.raises(ValueError, match=r"must|unknown|positive"):
        call()  # type: ignore[operator]


def test_describe_of_simultaneous_requests() -> None:
    seen = describe(router_mix(10, arrivals="at_once"))
    assert seen["requests"] == 10 and math.isnan(float(seen["rate"]))
