"""Presets against what their papers measured."""

from __future__ import annotations

import pytest

from envs.hardware import preset


def _disturbed_seconds(name: str, every: int, slope: float | None = None) -> float:
    """Time a 1000 + 1000 request, joined by a 500 + 500 one at each `every`-th iteration.

    Prefill-first batching: waiting requests are prefilled in a step of their own, which gives
    their first token; one request then needs as many decode steps as it has further tokens.
    """
    cost = preset(name)
    tables = cost.tables(128, 4_096)
    watched = [1_000, 1_000]  # occupied tokens, output tokens still to come
    waiting, running = [watched], []
    clock = iteration = 0
    while watched[1] > 0:
        if every and iteration and iteration % every == 0:
            waiting.append([500, 500])
        iteration += 1
        held = sum(request[0] for request in running)
        batch = []
        while waiting and held + waiting[0][0] <= 0.99 * cost.kv_tokens:
            batch.append(waiting.pop(0))
            held += batch[-1][0]
        if batch:
            clock += int(tables.prefill_ps[sum(request[0] for request in batch)])
            running += batch
        else:
            batch = running
            clock += int(tables.decode_ps[len(batch)]) + tables.context_ps * held
        for request in batch:
            request[0] += 1
            request[1] -= 1
        running = [request for request in running if request[1] > 0]
    return clock / 1e12


def test_v100_serves_an_isolated_request_in_17_s() -> None:
    # arXiv:2408.13510, Fig. 1a.
    assert _disturbed_seconds("v100-llama2-7b", every=0) == pytest.approx(17.0, rel=0.02)


def test_v100_serves_a_disturbed_request_in_31_s() -> None:
    # arXiv:2408.13510, Fig. 1a: a 500 + 500 request added every 50th iteration.
    assert _disturbed_seconds("v100-llama2-7b", every=50) == pytest.approx(31.0, rel=0.10)


def test_v100_tables_are_the_published_constants() -> None:
    tables = preset("v100-llama2-7b").tables(128, 4_096)
    assert list(tables.decode_ps[1:4]) == [16_700_000_000, 18_200_000_000, 19_700_000_000]
    assert tables.prefill_ps[1_000] == 16_700_000_000 + 1_000 * 320_000_000
    chunk, sequences = 256, 10
    mixed = tables.prefill_ps[sequences + chunk] + tables.sequence_ps[sequences]
    assert mixed == 16_700_000_000 + 1_500_000_000 * (sequences - 1) + 320_000_000 * chunk
    assert preset("v100-llama2-7b", 1.4e-3).tables(8, 64).decode_ps[2] == 18_100_000_000


def test_a10g_interpolates_the_measured_decode_steps() -> None:
    cost = preset("a10g-llama2-7b-slora")
    overhead = 3.7e-3
    assert cost.step_time(decode_seqs=78) == pytest.approx(46.7e-3 + overhead)
    assert cost.step_time(decode_seqs=59) == pytest.approx(42.15e-3 + overhead)
    assert cost.step_time(prefill_tokens=512) == pytest.approx(60e-3 + 512 * 0.2145e-3)
    with pytest.raises(ValueError, match="no decode slope"):
        preset("a10g-llama2-7b-slora", 1e-3)


def test_an_unknown_preset_names_the_close_one() -> None:
    with pytest.raises(KeyError, match="v100-llama2-7b"):
        preset("v100-llama-7b")
