"""What people bring of their own: other clocks, other separators, other names."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import pytest

from envs.workloads import (
    RequestTable,
    TraceError,
    TraceWarning,
    UnknownFormatError,
    read_trace,
    trace_format,
)
from tests.workloads import samples

NAMES = {"arrival_s": "ts", "prompt_tokens": "in", "output_tokens": "out"}
HEADER = "arrival_s,prompt_tokens,output_tokens\n"


def put(folder: Path, text: str, name: str = "own.csv") -> Path:
    path = folder / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def test_a_request_table_takes_the_common_options(tmp_path: Path) -> None:
    path = put(tmp_path, HEADER + "3000,1,2\n1000,3,4\n2000,5,0\n")
    with pytest.warns(TraceWarning, match="dropped"):
        table = read_trace(path, sort=True, rebase=True, on_zero="drop", time_unit="ms")
    assert table.arrival_s.tolist() == [0.0, 2.0]
    assert table.prompt_tokens.tolist() == [3, 1]
    frame = table.to_frame(all_columns=False)[::-1].astype({"arrival_s": float})
    frame["deadline_s"] = frame["arrival_s"] + 5.0
    frame["arrival_s"] += 1.0
    frame.to_parquet(tmp_path / "own.parquet")
    again = read_trace(tmp_path / "own.parquet", sort=True, rebase=True)
    assert again.arrival_s.tolist() == [0.0, 2.0]
    assert again.deadline_s.tolist() == [4.0, 6.0]  # on the clock of the arrivals
    with pytest.raises(TraceError, match=r"sort=True \(--sort\)"):
        read_trace(put(tmp_path, HEADER + "3,1,2\n1,3,4\n"))


def test_an_option_that_a_format_lacks(tmp_path: Path) -> None:
    for path, format in (
        (samples.servegen(tmp_path), "servegen"),
        (put(tmp_path, samples.MOONCAKE, "m.jsonl"), "mooncake"),
    ):
        with pytest.raises(ValueError, match=rf"'{format}' has no option 'time_unit'"):
            read_trace(path, time_unit="ms")


@pytest.mark.parametrize(
    ("first", "second", "unit"),
    [
        ("1700000000.136", "1700000001.636", None),
        ("1700000000136", "1700000001636", "ms"),
        ("1700000000136", "1700000001636", "timestamp"),
        ("1700000000.136", "1700000001.636", "timestamp"),
        ("2024-05-10 00:00:00.5", "2024-05-10T00:00:02+00:00", None),
        ("2024-05-10 00:00:00.5", "2024-05-10 00:00:02", "timestamp"),
    ],
)
def test_dates_and_unix_times_count_from_the_first(
    first: str, second: str, unit: str | None, tmp_path: Path
) -> None:
    options = {} if unit is None else {"time_unit": unit}
    table = read_trace(put(tmp_path, f"ts,in,out\n{first},1,2\n{second},3,4\n"), columns=NAMES,
                       **options)  # fmt: skip
    assert table.arrival_s == pytest.approx([0.0, 1.5], abs=1e-6)
    assert ("Unix times" in table.source) == first.startswith("17")
    own = read_trace(put(tmp_path, f"{HEADER}{first},1,2\n{second},3,4\n"), **options)
    assert own == table


def test_times_that_cannot_be_told(tmp_path: Path) -> None:
    path = put(tmp_path, "ts,in,out\n2024-05-10 00:00:00,1,2\nnoon,1,2\n")
    with pytest.raises(TraceError, match=r"line 2.*--time-unit timestamp"):
        read_trace(path, columns=NAMES)
    with pytest.raises(TraceError, match=r"line 3.*not a date"):
        read_trace(path, columns=NAMES, time_unit="timestamp")
    path = put(tmp_path, "ts,in,out\n1700000000136,1,2\n1700000000137,1,2\n")
    with pytest.raises(TraceError, match=r"Unix time in ms.*--time-unit ms"):
        read_trace(path, columns=NAMES)
    path = put(tmp_path, "ts,in,out\n0,1,2\n50000000,1,2\n")
    with pytest.raises(TraceError, match=r"another unit.*--time-unit ms"):
        read_trace(path, columns=NAMES)


@pytest.mark.parametrize("name", ["own.jsonl", "own.jsonl.gz"])
def test_json_lines_of_other_keys(name: str, tmp_path: Path) -> None:
    text = '{"ts": 0, "in": 5, "out": 6, "tenant": 7, "x": null}\n\n{"ts": 1.5, "in": 7.0, "out": 8, "tenant": "b"}\n'  # noqa: E501
    path = put(tmp_path, text, name)
    table = read_trace(path, columns=NAMES)
    assert table.arrival_s.tolist() == [0.0, 1.5]
    assert table.prompt_tokens.tolist() == [5, 7]
    assert table.tenant.values().tolist() == ["7", "b"]
    dated = text.replace('"ts": 0', '"ts": "2024-01-01 00:00:00"')
    dated = dated.replace('"ts": 1.5', '"ts": "2024-01-01 00:00:01.5"')
    assert read_trace(put(tmp_path, dated, name), columns=NAMES) == table
    with pytest.raises(UnknownFormatError, match=r"ts, in, out.*--columns"):
        trace_format(put(tmp_path, text, name))


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        ('{"ts": 2, "in": 1}', "out", "missing"),
        ('{"ts": 2, "in": "many", "out": 1}', "in", "not a whole number"),
        ('{"ts": 2, "in": 1.5, "out": 1}', "in", "not a whole number"),
        ('{"ts": 2, "in": true, "out": 1}', "in", "not a whole number"),
        ('{"ts": 2, "in": 99999999999999999999, "out": 1}', "in", "too large"),
        ('{"ts": null, "in": 1, "out": 1}', "ts", "null"),
        ('{"ts": 0.5, "in": 1, "out": 1}', "ts", "earlier"),
        ('{"ts": 2, "in": 1', None, "not JSON"),
        ("7", None, "not a JSON object"),
    ],
)
def test_bad_json_lines(line: str, column: str | None, words: str, tmp_path: Path) -> None:
    path = put(tmp_path, f'{{"ts": 1, "in": 1, "out": 1}}\n\n{line}\n', "own.jsonl")
    with pytest.raises(TraceError, match=words) as caught:
        read_trace(path, columns=NAMES)
    assert (caught.value.line, caught.value.column) == (3, column)


def test_a_json_array_is_told(tmp_path: Path) -> None:
    for text in ('[{"ts": 1}]', '\n[\n  {"ts": 1}\n]\n', "[]"):
        for options in ({}, {"columns": NAMES}, {"format": "mooncake"}):
            with pytest.raises(TraceError, match=r"JSON array, not JSON lines"):
                read_trace(put(tmp_path, text, "own.json"), **options)


@pytest.mark.parametrize("name", [name for name in samples.TEXTS if name.endswith(".csv")])
@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(name: str, separator: str, tmp_path: Path) -> None:
    table = read_trace(put(tmp_path, samples.TEXTS[name]))
    changed = samples.TEXTS[name].replace(",", separator)
    assert read_trace(put(tmp_path, changed)) == table
    lines = changed.splitlines()
    lines[3] = lines[3].rpartition(separator)[0]
    with pytest.raises(TraceError, match=r"line 4.*fields"):
        read_trace(put(tmp_path, "\n".join(lines)))


def test_the_one_missing_column_of_a_format_is_named(tmp_path: Path) -> None:
    text = samples.AZURE.replace("GeneratedTokens", "Tokens")
    with pytest.raises(TraceError, match=r"'GeneratedTokens'.*missing"):
        read_trace(put(tmp_path, text))


def test_a_number_that_is_too_large_is_told(tmp_path: Path) -> None:
    path = put(tmp_path, HEADER + "0,99999999999999999999,1\n")
    with pytest.raises(TraceError, match=r"line 2.*'99999999999999999999' is too large"):
        read_trace(path)


def test_a_column_too_many_has_a_mend(tmp_path: Path) -> None:
    path = put(tmp_path, "arrival_s,prompt_tokens,output_tokens,latency\n0,1,2,3\n")
    with pytest.raises(TraceError, match=r"'latency'.*--format generic"):
        read_trace(path)
    assert len(read_trace(path, "generic")) == 1


def test_an_unknown_sageserve_tier_names_row_and_value(tmp_path: Path) -> None:
    text = samples.edit(samples.SAGESERVE, 3, "workload_type", "batch")
    with pytest.raises(TraceError, match=r"line 3.*workload_type.*'batch'.*prod, dev"):
        read_trace(put(tmp_path, text))


def test_unknown_format_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(UnknownFormatError("is odd", mend="Mend it", line=1)))
    assert isinstance(error, UnknownFormatError) and error.line == 1


def test_a_table_read_and_written_is_equal(tmp_path: Path) -> None:
    table = RequestTable.from_columns(arrival_s=[0.0, 1.0], prompt_tokens=3, output_tokens=3)
    for name in ("t.csv", "t.csv.gz", "t.parquet"):
        assert read_trace(table.write(tmp_path / name)) == table
