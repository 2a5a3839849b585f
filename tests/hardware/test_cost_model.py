"""The step law and its integer tables."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

from envs.hardware import PICOSECONDS, CostModel, OutsideFitWarning, cost_model
from envs.hardware.cost_model import SHARPNESS, smooth_max

TOY = CostModel(
    name="toy",
    model="Llama-2-7B",
    gpu="A10G",
    weights_s=3e-3,
    token_s=1e-3,
    linear_s=2e-6,
    context_s=5e-9,
    mixed_context_s=7e-9,
    attention_s=11e-12,
    overhead_s=1e-3,
    decode_sequence_s=4e-6,
    mixed_sequence_s=6e-6,
    decode_overhead_s=-0.5e-3,
    sharpness=2,
    hinge_tokens=4,
    hinge_s=1e-6,
)


def test_tables_match_a_hand_computation() -> None:
    tables = TOY.tables(max_num_seqs=4, max_batched_tokens=8)
    # sm_2(3, 4) = 5 ms; decode: + (2 + 4) us * 4 + 1 ms - 0.5 ms.
    assert tables.decode_ps[4] == 5_524_000_000
    # sm_2(3, 8) = sqrt(73) ms; prefill: + 2 us * 8 + 1 us * (8 - 4) + 1 ms.
    assert tables.prefill_ps[8] == round(73**0.5 * 1e9) + 1_020_000_000
    # 4 decodes cost a mixed step what they cost alone beyond 4 prefill tokens, plus 6 us each.
    assert tables.prefill_ps[4] == 6_008_000_000
    assert tables.sequence_ps[4] == 5_524_000_000 - 6_008_000_000 + 24_000_000
    assert tables.sequence_ps[0] == 0
    assert (tables.context_ps, tables.mixed_context_ps, tables.attention_ps) == (5_000, 7_000, 11)


def test_tables_are_the_rounded_law() -> None:
    tables = TOY.tables(16, 64)
    b, n, context, work = 5, 20, 3_000, 210
    decode = int(tables.decode_ps[b]) + tables.context_ps * context
    mixed = (
        int(tables.prefill_ps[b + n] + tables.sequence_ps[b])
        + tables.mixed_context_ps * context
        + tables.attention_ps * work
    )
    assert decode / PICOSECONDS == pytest.approx(TOY.step_time(b, context), rel=1e-9)
    assert mixed / PICOSECONDS == pytest.approx(TOY.step_time(b, context, n, work), rel=1e-9)


def test_tables_are_positive_integers_of_the_stated_shape() -> None:
    still = CostModel(name="still", model="Llama-2-7B", gpu="A10G")
    for cost in (TOY, still):
        tables = cost.tables(300, 256)
        assert tables.decode_ps.shape == (301,) and tables.decode_ps.dtype == np.int64
        assert tables.prefill_ps.shape == (257,) and tables.sequence_ps.shape == (301,)
        assert tables.decode_ps.min() >= 1 and tables.prefill_ps.min() >= 1
        assert tables.prefill_tail_ps >= 1


def test_the_tail_continues_the_slope_of_the_law() -> None:
    tables = TOY.tables(4, 1_000)
    beyond = int(tables.prefill_ps[1_000]) + 500 * tables.prefill_tail_ps
    assert beyond / PICOSECONDS == pytest.approx(TOY.step_time(prefill_tokens=1_500), rel=1e-3)


@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_smooth_max_lies_between_the_maximum_and_the_sum(sharpness: int) -> None:
    a, b = np.array([0.0, 1.0, 2.0, 5.0]), np.array([0.0, 1.0, 7.0, 0.0])
    got = smooth_max(a, b, sharpness)
    assert np.allclose(got, (a**sharpness + b**sharpness) ** (1 / sharpness))
    assert np.all(got >= np.maximum(a, b)) and np.all(got <= a + b + 1e-12)


def test_experts_are_read_by_their_expected_share() -> None:
    cost = dataclasses.replace(
        TOY, experts=8, experts_per_token=2, experts_s=8e-3, token_s=0.0, sharpness=1
    )
    share = 1 - 0.75**3
    expected = 3e-3 + 8e-3 * share + 3 * 6e-6 + 0.5e-3
    assert cost.step_time(decode_seqs=3) == pytest.approx(expected)


def test_a_decode_table_is_interpolated_and_continued() -> None:
    cost = dataclasses.replace(
        TOY, decode_table=((1, 10e-3), (3, 20e-3), (5, 40e-3)), decode_overhead_s=1e-3
    )
    assert cost.step_time(decode_seqs=[1, 2, 4, 6]) == pytest.approx([11e-3, 16e-3, 31e-3, 51e-3])


def test_a_prefill_table_is_interpolated_and_continued() -> None:
    cost = dataclasses.replace(TOY, prefill_table=((10, 10e-3), (20, 20e-3), (40, 60e-3)))
    tokens = [5, 15, 30, 50]
    expected = [6e-3, 16e-3, 41e-3, 81e-3]
    plain = dataclasses.replace(cost, attention_s=0.0)
    assert plain.step_time(prefill_tokens=tokens) == pytest.approx(expected)
    tables = plain.tables(4, 64)
    assert list(tables.prefill_ps[tokens]) == [round(seconds * 1e12) for seconds in expected]
    assert tables.prefill_tail_ps == 2_000_000_000
    # Decodes still add what they cost alone beyond as many prefill tokens.
    alone = plain.step_time(4) - plain.step_time(prefill_tokens=4) + 24e-6
    assert plain.step_time(4, 0, 11) == pytest.approx(16e-3 + alone)


def test_a_mixed_step_may_depend_on_its_tokens_alone() -> None:
    cost = dataclasses.replace(TOY, mixed_by_tokens=True)
    tables = cost.tables(8, 64)
    assert list(tables.sequence_ps) == [6_000_000 * b for b in range(9)]
    expected = cost.step_time(prefill_tokens=25) + 5 * 6e-6 + 300 * 7e-9
    assert cost.step_time(5, 300, 20) == pytest.approx(expected)
    assert cost.step_time(5, 300) == TOY.step_time(5, 300)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_s": -1.0}, "token_s = -1.0 must be finite"),
        ({"context_s": float("nan")}, "context_s = nan"),
        ({"sharpness": 3}, "sharpness 3"),
        ({"experts": 4}, "experts_per_token = 0"),
        ({"decode_table": ((2, 1.0), (1, 2.0))}, "increasing in sequences"),
        ({"prefill_table": ((1, 1.0),)}, "prefill_table needs two or more rows"),
        ({"prefill_table": ((2, 1.0), (2, 2.0))}, "increasing in tokens"),
        ({"prefill_table": ((1, 1.0), (2, float("inf")))}, "has inf s at 2 tokens"),
        ({"decode_table": ((1, -1.0), (2, 2.0))}, "has -1.0 s at 1 sequences"),
    ],
)
def test_impossible_coefficients_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TOY, **change)
    with pytest.raises(ValueError, match="at least 1"):
        TOY.tables(0, 10)


def test_use_outside_the_fit_warns_once() -> None:
    cost = dataclasses.replace(TOY, name="toy-range", fit_seqs=8, fit_tokens=100)
    cost.check_range(max_seqs=8, max_tokens=100, max_context=10**6)
    with pytest.warns(OutsideFitWarning, match="16 sequences \\(fitted to 8\\)"):
        cost.check_range(max_seqs=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cost.check_range(max_seqs=16)


def test_a_pair_never_measured_gets_the_roofline_with_its_error() -> None:
    cost = cost_model("Mistral-Nemo-12B", "L40S")
    assert cost.tier == "roofline" and 0.0 < cost.error < 1.0
    wide = cost_model("Mistral-Nemo-12B", "L40S", tensor_parallel=4)
    assert wide.step_time(1, 100) < cost.step_time(1, 100)
    weights_at_full_bandwidth = 2 * 12.2e9 / 0.864e12
    assert cost.step_time(decode_seqs=1) > weights_at_full_bandwidth * 0.9
    eight_bit = cost_model("Mistral-Nemo-12B", "L40S", precision="fp8")
    assert eight_bit.step_time(1) < cost.step_time(1)
    with pytest.raises(ValueError, match="tensor_parallel = 0"):
        cost_model("Mistral-Nemo-12B", "L40S", 0)
