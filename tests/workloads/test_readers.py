from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from envs.workloads import (
    RequestTable,
    TraceError,
    TraceWarning,
    convert,
    describe,
    read_trace,
    trace_files,
    trace_format,
)
from tests.workloads import samples


def put(folder: Path, name: str, text: str | None = None, pack: bool = False) -> Path:
    data = (samples.TEXTS[name] if text is None else text).encode()
    path = folder / (name + ".gz" if pack else name)
    path.write_bytes(gzip.compress(data) if pack else data)
    return path


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("name", samples.TEXTS)
def test_every_format_is_recognised(name: str, pack: bool, tmp_path: Path) -> None:
    path = put(tmp_path, name, pack=pack)
    table = read_trace(path)
    assert len(table) == 3 and path.name in table.source
    assert table == read_trace(path, format=name.split(".")[0])


@pytest.mark.parametrize("name", samples.TEXTS)
@pytest.mark.parametrize("ends", ["no newline", "windows", "blank lines", "byte-order mark"])
def test_line_ends_do_not_matter(name: str, ends: str, tmp_path: Path) -> None:
    text = samples.TEXTS[name]
    changed = {
        "no newline": text.rstrip("\n"),
        "windows": text.replace("\n", "\r\n"),
        "blank lines": "\n" + text + "\n\n",
        "byte-order mark": "\ufeff" + text,
    }[ends]
    assert read_trace(put(tmp_path, name, changed)) == read_trace(put(tmp_path, name))


def test_azure_time_counts_from_the_first_request(tmp_path: Path) -> None:
    table = read_trace(put(tmp_path, "azure.csv"))
    assert table.arrival_s.tolist() == [0.0, 0.052, 60.052]
    assert table.prompt_tokens.tolist() == [4808, 3180, 110]


def test_azure_2024_with_time_zone_and_whole_seconds(tmp_path: Path) -> None:
    text = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:01+00:00,2399,6
2024-05-10 02:00:02.5+02:00,76,15
"""
    assert read_trace(put(tmp_path, "a.csv", text)).arrival_s.tolist() == [0.0, 0.99007, 2.49007]


def test_burstgpt_failures_are_dropped_and_counted(tmp_path: Path) -> None:
    text = samples.edit(samples.BURSTGPT, 3, "Response tokens", "0")
    path = put(tmp_path, "b.csv", text)
    with pytest.warns(TraceWarning, match="3 requests read, 1 row with 0 tokens dropped"):
        table = read_trace(path)
    assert table.arrival_s.tolist() == [5.0, 118.0] and "1 row " in table.source
    assert table.model.values().tolist() == ["ChatGPT", "ChatGPT"]
    with pytest.warns(TraceWarning, match="given 1"):
        assert read_trace(path, on_zero="one").output_tokens.tolist() == [18, 1, 276]


def test_arena_clients_are_tenants(tmp_path: Path) -> None:
    table = read_trace(put(tmp_path, "arena.csv"))
    assert table.tenant.values().tolist() == ["13", "2", "13"]


def test_sageserve_regions_tiers_and_repeated_ids(tmp_path: Path) -> None:
    table = read_trace(put(tmp_path, "sageserve.csv"))
    assert table.region.values().tolist() == ["centralus", "westus", "westus"]
    assert table.tier.values().tolist() == ["IW-N", "NIW", "IW-N"]
    assert table.model.names == ("A", "B")
    twice = samples.edit(samples.SAGESERVE, 4, "request_id", "0")
    assert read_trace(put(tmp_path, "t.csv", twice)).request_id.tolist() == [0, 1, 2]


def test_mooncake_prefixes(tmp_path: Path) -> None:
    other = '{"timestamp": 95, "input_length": 9, "output_length": 4, "hash_ids": [7]}\n'
    table = read_trace(put(tmp_path, "m.jsonl", samples.MOONCAKE + other))
    assert table.prefix_id.tolist() == [0, 0, 0, -1]
    assert table.prefix_tokens.tolist() == [0, 1024, 700, 0]
    assert table.arrival_s.tolist() == [0.0, 0.04, 0.09, 0.095]


def test_generic_columns_and_units(tmp_path: Path) -> None:
    text = "when,in,out,tenant,junk\n1000,5,6,a,x\n1500,7,8,b,y\n"
    path = put(tmp_path, "g.csv", text)
    names = {"arrival_s": "when", "prompt_tokens": "in", "output_tokens": "out"}
    table = read_trace(path, columns=names, time_unit="ms", rebase=True)
    assert table.arrival_s.tolist() == [0.0, 0.5]
    assert table.tenant.values().tolist() == ["a", "b"]
    frame = pd.read_csv(path)
    frame.to_parquet(tmp_path / "g.parquet")
    again = read_trace(tmp_path / "g.parquet", columns=names, time_unit="ms", rebase=True)
    assert again == table
    frame["when"] = pd.to_datetime(["2024-01-01 00:00:00.0", "2024-01-01 00:00:00.5"])
    frame.to_parquet(tmp_path / "d.parquet")
    frame.to_csv(tmp_path / "d.csv", index=False)
    for name in ("d.parquet", "d.csv"):
        assert read_trace(tmp_path / name, columns=names, time_unit="timestamp") == table


def test_sort_keeps_ties_in_order(tmp_path: Path) -> None:
    text = "arrival_s,client_id,prompt_tokens,output_tokens\n2,a,1,1\n1,b,2,1\n2,c,3,1\n1,d,4,1\n"
    table = read_trace(put(tmp_path, "s.csv", text), sort=True)
    assert table.tenant.values().tolist() == ["b", "d", "a", "c"]
    rebased = read_trace(put(tmp_path, "s.csv", text), sort=True, rebase=True)
    assert rebased.arrival_s.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_whole_numbers_written_as_floats_are_read(tmp_path: Path) -> None:
    text = samples.edit(samples.ARENA, 3, "output_tokens", "137.0")
    assert read_trace(put(tmp_path, "f.csv", text)) == read_trace(put(tmp_path, "arena.csv"))


def test_quoted_fields_with_newlines_are_read(tmp_path: Path) -> None:
    text = 'arrival_s,text,prompt_tokens,output_tokens\n0,"a\nb, ""c""",3,4\n1,d,5,6\n'
    table = read_trace(put(tmp_path, "q.csv", text), format="generic")
    assert table.prompt_tokens.tolist() == [3, 5]


def test_convert_writes_an_equal_table(tmp_path: Path) -> None:
    table = convert(put(tmp_path, "burstgpt.csv"), tmp_path / "out.parquet")
    assert (
        RequestTable.read(tmp_path / "out.parquet") == table == read_trace(tmp_path / "out.parquet")
    )


def test_options_that_a_format_lacks(tmp_path: Path) -> None:
    path = put(tmp_path, "azure.csv")
    with pytest.raises(ValueError, match=r"azure.*no option 'time_unit'.*sort"):
        read_trace(path, time_unit="s")
    with pytest.raises(ValueError, match="on_zero"):
        read_trace(path, on_zero="ignore")
    with pytest.raises(ValueError, match="format 'excel' is unknown"):
        read_trace(path, format="excel")
    with pytest.raises(ValueError, match="'generic'"):
        read_trace(path, format="azure", columns={"arrival_s": "TIMESTAMP"})


def test_the_format_and_all_files_of_a_trace_are_told(tmp_path: Path) -> None:
    drawn = samples.servegen(tmp_path)
    assert trace_format(drawn) == "servegen"
    lengths = tmp_path / "language_m-tiny_lengths_quantiles.parquet"
    assert trace_files(drawn) == (drawn, lengths)
    table = RequestTable.from_columns(arrival_s=[0.0, 1.0], prompt_tokens=3, output_tokens=3)
    for name in ("log.csv", "log.csv.gz", "log.parquet"):
        path = table.write(tmp_path / name)
        assert trace_format(path) == "table"
        assert trace_files(path) == (path,)
    assert trace_format(path, columns={"arrival_s": "ts"}) == "generic"
    assert trace_format(path, "azure") == "azure"  # the word is taken, the file is not opened
    with pytest.raises(ValueError, match="'azur' is unknown"):
        trace_format(path, "azur")
    with pytest.raises(ValueError, match=r"columns \(--columns\) are for format 'generic'"):
        trace_format(path, "azure", {"arrival_s": "ts"})
    with pytest.raises(TraceError, match="absent"):
        trace_format(tmp_path / "absent.csv")


def test_servegen_counts_follow_the_record(tmp_path: Path) -> None:
    path = samples.servegen(tmp_path)
    table = read_trace(path, duration_s=1200.0)
    assert len(table) == 0.5 * 600 + 1.0 * 600 + 0.1 * 600
    assert (table.arrival_s < 600).sum() == 360
    assert set(table.tenant.values()) == {"client-1", "client-2"}
    assert table.model.names == ("m-tiny",)
    assert table.prompt_tokens.min() >= 11 and table.output_tokens.min() >= 21
    assert np.median(table.prompt_tokens) == pytest.approx(60, abs=4)
    assert len(read_trace(path, duration_s=1200.0, missing_lengths="drop")) == 900
    assert len(read_trace(path, duration_s=1200.0, clients=[2])) == 60
    assert len(read_trace(path, duration_s=600.0, rate_scale=0.5)) == 180
    later = read_trace(path, start_s=600.0, duration_s=600.0)
    assert len(later) == 600 and later.arrival_s.max() < 600
    assert (
        table == read_trace(path, duration_s=1200.0) != read_trace(path, duration_s=1200.0, seed=1)
    )


def test_servegen_keeps_the_shape_of_the_gaps(tmp_path: Path) -> None:
    path = samples.servegen(tmp_path)
    bursty = describe(read_trace(path, start_s=600.0, duration_s=600.0, rate_scale=20.0))
    assert bursty["gap_cv"] == pytest.approx(5**0.5, rel=0.1)  # Weibull of shape 1/2
    smooth = describe(read_trace(path, duration_s=600.0, rate_scale=20.0, clients=[1]))
    assert smooth["gap_cv"] == pytest.approx(1.0, rel=0.05)
