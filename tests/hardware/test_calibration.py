"""The shipped table of fitted cost models."""

from __future__ import annotations

from pathlib import Path

import pytest

from envs.hardware import calibrated, cost_model
from envs.hardware.calibration import TABLE, read_calibration
from tests.paths import DATA, needs_data

ROWS = read_calibration()


@pytest.mark.parametrize(("cost", "row"), ROWS, ids=[cost.name for cost, _ in ROWS])
def test_every_row_makes_tables_and_states_its_error(cost, row) -> None:
    tables = cost.tables(256, 2_048)
    assert tables.decode_ps.min() > 10**9  # a step of a large model takes over a millisecond
    assert tables.prefill_ps[2_048] > tables.prefill_ps[1]
    assert 0.0 < cost.error <= 0.15 and cost.points >= 10
    assert cost.source and cost.licence and row["split"]
    found = cost_model(cost.model, cost.gpu, cost.tensor_parallel, cost.engine, cost.precision)
    assert found.name == cost.name and found.tier == "calibrated"


def test_keys_are_unique() -> None:
    assert len(calibrated()) == len(ROWS)


SPLITWISE = "Splitwise perf_model.csv, medians of five"
SAGESERVE = "SageServe tables, medians"
SERVED = "aiconfigurator silicon points, Llama-3.1-70B fp8, vLLM"


@pytest.mark.parametrize(
    ("pair", "decode", "prefill", "seconds", "band", "source"),
    [
        (("Llama-2-70B", "A100-SXM-80GB", 2), (1, 576), 0, 54.88e-3, 0.10, SPLITWISE),
        (("Llama-2-70B", "A100-SXM-80GB", 4), (0, 0), 1_024, 227.1e-3, 0.20, SPLITWISE),
        (("Llama-3.1-8B", "A100-SXM-80GB", 2), (8, 8 * 576), 0, 10.21e-3, 0.05, SAGESERVE),
        (("Llama-3.1-8B", "A100-SXM-80GB", 4), (32, 32 * 576), 0, 20.13e-3, 0.05, SAGESERVE),
        (("Llama-3.1-8B", "A100-SXM-80GB", 4), (0, 0), 4_000, 252.6e-3, 0.05, SAGESERVE),
    ],
)
def test_published_step_times_are_met(pair, decode, prefill, seconds, band, source) -> None:
    work = prefill * (prefill + 1) / 2
    got = cost_model(*pair).step_time(*decode, prefill, work)
    assert got == pytest.approx(seconds, rel=band), source


@pytest.mark.parametrize(
    ("concurrency", "isl", "osl", "tpot"),
    [(4, 1_024, 1_024, 9.854e-3), (64, 1_024, 1_024, 16.07e-3), (16, 8_192, 1_024, 17.44e-3)],
)
def test_published_served_tpot_is_met(concurrency, isl, osl, tpot) -> None:
    cost = cost_model("Llama-3.1-70B", "H200", 4, "vllm", "fp8")
    context = concurrency * (isl + osl / 2)
    got = cost.step_time(concurrency, context) + cost.linear_s * concurrency * isl / osl
    assert got == pytest.approx(tpot, rel=0.15), SERVED


def test_a_broken_table_names_line_and_mend(tmp_path: Path) -> None:
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    broken = tmp_path / "calibration.csv"
    broken.write_text("\n".join([lines[0].replace("token_s,", "", 1), *lines[1:]]))
    with pytest.raises(ValueError, match="columns token_s are missing"):
        read_calibration(broken)
    fields = lines[1].split(",")
    fields[lines[0].split(",").index("sharpness")] = "5"
    broken.write_text("\n".join([lines[0], ",".join(fields)]))
    with pytest.raises(ValueError, match=r"calibration.csv, line 2: .*sharpness 5"):
        read_calibration(broken)


@needs_data
def test_fitting_again_gives_the_stored_held_out_error() -> None:
    from envs.hardware.fitting.served import fit_configuration, served_points

    assert DATA is not None
    stored = {cost.name: cost for cost, _ in ROWS}
    for item in list(served_points(DATA).items())[1:4]:
        fit = fit_configuration(*item)
        assert fit.mean("tpot") == pytest.approx(stored[fit.cost.name].tpot_error, rel=1e-3)
        assert fit.cost.overhead_s == pytest.approx(stored[fit.cost.name].overhead_s, rel=1e-3)


def test_shipped_families_keep_their_bands() -> None:
    """Means over the pairs of a family; the script's report also shows the tails."""
    for family, kind, band in (
        ("splitwise", "decode", 0.05),
        ("splitwise", "prefill", 0.08),
        ("sageserve", "decode", 0.05),
        ("sageserve", "prefill", 0.08),
        ("vllm_layers", "decode", 0.05),
        ("vllm_layers", "prefill", 0.08),
        ("served_latency", "tpot", 0.05),
    ):
        errors = [float(row[f"{kind}_error"]) for _, row in ROWS if row["dataset"] == family]
        assert errors and sum(errors) / len(errors) <= band, (family, kind)


def test_tensor_parallel_divides_the_heads() -> None:
    with pytest.raises(ValueError, match="64 attention heads, which 3 GPUs"):
        cost_model("Llama-2-70B", "A100-SXM-80GB", 3)
