from __future__ import annotations

from pathlib import Path

import pytest

from envs.workloads import describe, read_trace
from envs.workloads.azure import write_summary
from tests.paths import DATA, ROOT, needs_data

pytestmark = needs_data


@pytest.mark.parametrize(
    ("trace", "short", "n", "hours", "cv"),
    [("code", "code", 8819, 0.95, 13.15), ("conversation", "conv", 19366, 0.97, 1.09)],
)
def test_azure(trace: str, short: str, n: int, hours: float, cv: float, tmp_path: Path) -> None:
    assert DATA is not None
    table = read_trace(DATA / "azure_llm_2023" / f"AzureLLMInferenceTrace_{short}.csv.gz")
    seen = describe(table)
    assert len(table) == n and "Azure" in table.source
    assert float(seen["duration_s"]) / 3600 == pytest.approx(hours, abs=0.01)
    assert seen["gap_cv"] == pytest.approx(cv, abs=0.01)
    assert table.prompt_tokens.min() > 0 and table.output_tokens.min() > 0
    shipped = (ROOT / "envs/workloads/data" / f"azure_2023_{trace}.csv").read_text("utf-8")
    about = [line[2:] for line in shipped.splitlines() if line.startswith("# ")]
    write_summary(table, tmp_path / "again.csv", "\n".join(about))
    assert (tmp_path / "again.csv").read_text("utf-8") == shipped


def test_mooncake_prefix_reuse() -> None:
    assert DATA is not None
    table = read_trace(DATA / "mooncake_synthetic" / "synthetic_trace.jsonl.gz")
    assert len(table) == 3993
    assert describe(table)["shared_prefix_share"] == pytest.approx(0.65, abs=0.01)


def test_arena_trace_and_what_was_measured_on_it() -> None:
    assert DATA is not None
    table = read_trace(DATA / "vtc_a10g" / "real_trace.csv")
    assert len(table) == 1500 and describe(table)["tenants"] == 27
    for path in sorted((DATA / "vtc_a10g").glob("measured_*.csv.gz")):
        measured = read_trace(path)
        assert "arena" in measured.source
        if "real" in path.name:
            assert (measured.prompt_tokens == table.prompt_tokens).all()
            assert measured.tenant == table.tenant


@pytest.mark.parametrize(
    ("name", "rate"), [("language_m-large", 205.4), ("reason_deepseek-r1", 19.3)]
)
def test_servegen(name: str, rate: float) -> None:
    assert DATA is not None
    path = DATA / "servegen" / f"{name}_trace.parquet"
    table = read_trace(path, duration_s=3600.0, rate_scale=0.1)
    assert describe(table)["rate"] == pytest.approx(rate / 10, rel=0.01)
    assert len(set(table.tenant.values())) > 20
