from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs.workloads import RequestTable, TraceError, read_trace, router_mix
from tests.workloads import samples

CSVS = [name for name in samples.TEXTS if name.endswith(".csv")]
QUICK = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def refused(path: Path, **options: object) -> TraceError:
    with pytest.raises(TraceError) as caught:
        read_trace(path, **options)  # type: ignore[arg-type]
    error = caught.value
    assert error.path == path and str(path) in str(error) and error.mend in str(error)
    assert error.__cause__ is None  # one clear error, not a chain
    return error


def put(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_absent_and_folder(tmp_path: Path) -> None:
    assert "does not exist" in str(refused(tmp_path / "absent.csv"))
    assert "is a folder" in str(refused(tmp_path))
    with pytest.raises(TraceError, match="does not exist"):
        RequestTable.read(tmp_path / "absent.parquet")
    with pytest.raises(TraceError, match="does not exist"):
        read_trace(tmp_path / "absent_trace.parquet", format="servegen")


@pytest.mark.parametrize("text", ["", "\n\n", "  "])
def test_empty(text: str, tmp_path: Path) -> None:
    assert "empty" in str(refused(put(tmp_path / "e.csv", text)))
    assert "empty" in str(refused(put(tmp_path / "e.csv.gz", gzip.compress(text.encode()))))


@pytest.mark.parametrize("name", CSVS)
def test_header_only(name: str, tmp_path: Path) -> None:
    header = samples.TEXTS[name].splitlines()[0]
    for text in (header, header + "\n", header + "\n\n"):
        assert "no request" in str(refused(put(tmp_path / name, text)))


@pytest.mark.parametrize("name", samples.TEXTS)
def test_cut_gzip(name: str, tmp_path: Path) -> None:
    data = gzip.compress(samples.TEXTS[name].encode())
    assert "cut short" in str(refused(put(tmp_path / (name + ".gz"), data[:-12])))


@pytest.mark.parametrize("name", samples.TEXTS)
def test_not_utf8(name: str, tmp_path: Path) -> None:
    lines = samples.TEXTS[name].encode().split(b"\n")
    lines[2] = lines[2][:-1] + b"\xff" + lines[2][-1:]
    error = refused(put(tmp_path / name, b"\n".join(lines)))
    assert error.line == 3 and "UTF-8" in str(error)


@pytest.mark.parametrize("name", CSVS)
def test_missing_column(name: str, tmp_path: Path) -> None:
    column = samples.OUTPUT_COLUMN[name]
    path = put(tmp_path / name, samples.TEXTS[name].replace(column, "other", 1))
    error = refused(path, format=name.split(".")[0])
    assert error.line == 1 and (error.column in (column, "other"))


@pytest.mark.parametrize("name", CSVS)
@pytest.mark.parametrize("value", ["-3", "1.5", "nan", "inf", "", "many", "1e3", "9" * 30])
def test_bad_tokens(name: str, value: str, tmp_path: Path) -> None:
    column = samples.OUTPUT_COLUMN[name]
    text = "\n" + samples.edit(samples.TEXTS[name], 3, column, value)  # a blank line before
    error = refused(put(tmp_path / name, text))
    assert (error.line, error.column) == (4, column)


@pytest.mark.parametrize("name", CSVS)
def test_zero_tokens(name: str, tmp_path: Path) -> None:
    column = samples.OUTPUT_COLUMN[name]
    path = put(tmp_path / name, samples.edit(samples.TEXTS[name], 4, column, "0"))
    error = refused(path, **({} if name == "table.csv" else {"on_zero": "error"}))
    assert (error.line, error.column) == (4, column)


@pytest.mark.parametrize("name", CSVS)
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "", "noon", "1e300"])
def test_bad_times(name: str, value: str, tmp_path: Path) -> None:
    column = samples.TIME_COLUMN[name]
    path = put(tmp_path / name, samples.edit(samples.TEXTS[name], 2, column, value))
    error = refused(path)
    assert error.column == column
    assert error.line == 2 or (value in ("inf", "1e300") and error.line == 3)  # now unsorted


@pytest.mark.parametrize("name", CSVS)
def test_unsorted(name: str, tmp_path: Path) -> None:
    lines = samples.TEXTS[name].splitlines()
    path = put(tmp_path / name, "\n".join([lines[0], lines[1], lines[3], lines[2]]))
    if name == "sageserve.csv":  # the last two arrive together
        path = put(path, "\n".join([lines[0], lines[2], lines[1]]))
    error = refused(path)
    assert error.column == samples.TIME_COLUMN[name] and "earlier" in str(error)
    assert error.line == (3 if name == "sageserve.csv" else 4)


@pytest.mark.parametrize("name", CSVS)
def test_ragged_line(name: str, tmp_path: Path) -> None:
    cut = samples.TEXTS[name].rstrip()
    error = refused(put(tmp_path / name, cut[: cut.rindex(",")]))
    assert error.line == 4 and "fields" in str(error)


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        ('{"timestamp": 1, "input_length": 5', None, "not JSON"),
        ("[1, 2]", None, "not a JSON object"),
        ('{"timestamp": 1, "input_length": 5, "hash_ids": []}', "output_length", "missing"),
        ('{"timestamp": 1, "input_length": -5, "output_length": 1, "hash_ids": []}',
         "input_length", "whole number"),
        ('{"timestamp": 1, "input_length": 5.5, "output_length": 1, "hash_ids": []}',
         "input_length", "whole number"),
        ('{"timestamp": 1, "input_length": 5, "output_length": 0, "hash_ids": []}',
         "output_length", "0 tokens"),
        ('{"timestamp": NaN, "input_length": 5, "output_length": 1, "hash_ids": []}',
         "timestamp", "milliseconds"),
        ('{"timestamp": -9, "input_length": 5, "output_length": 1, "hash_ids": []}',
         "timestamp", "earlier"),
        ('{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": ["x"]}',
         "hash_ids", "list of whole"),
        ("[" * 100_000, None, "not JSON"),
    ],
)  # fmt: skip
def test_bad_mooncake_line(line: str, column: str | None, words: str, tmp_path: Path) -> None:
    first, _, third, *_ = samples.MOONCAKE.split("\n")
    error = refused(
        put(tmp_path / "m.jsonl", "\n".join([first, "", line, third])), format="mooncake"
    )
    assert (error.line, error.column) == (3, column) and words in str(error)


def test_unknown_format_lists_the_header(tmp_path: Path) -> None:
    error = refused(put(tmp_path / "x.csv", "a,b,c\n1,2,3\n"))
    assert "a, b, c" in str(error) and "columns=" in error.mend


def test_repeated_and_unnamed_columns(tmp_path: Path) -> None:
    assert "repeated" in str(refused(put(tmp_path / "x.csv", "a,b,a\n1,2,3\n")))
    assert "repeated" in str(refused(put(tmp_path / "x.csv", "a,,b\n1,2,3\n")))


def test_bad_mapping(tmp_path: Path) -> None:
    path = put(tmp_path / "x.csv", "when,in,out\n1,2,3\n")
    assert refused(path, columns={"arrival": "when"}).column == "arrival"
    assert refused(path, columns={"arrival_s": "when"}).column == "prompt_tokens"


def test_sageserve_unknown_codes(tmp_path: Path) -> None:
    for column, value in (("regions", "912"), ("workload_type", "test")):
        path = put(tmp_path / "s.csv", samples.edit(samples.SAGESERVE, 3, column, value))
        assert (refused(path).line, refused(path).column) == (3, column)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("rate", -1.0, "out of range"),
        ("p1", float("nan"), "out of range|missing"),
        ("pat", "Pareto", "unknown"),
        ("rate", 1e8, "would be drawn"),
    ],
)
def test_bad_servegen(column: str, value: object, words: str, tmp_path: Path) -> None:
    path = samples.servegen(tmp_path)
    frame = pd.read_parquet(path)
    frame.loc[1, column] = value
    frame.to_parquet(path)
    with pytest.raises(TraceError, match=words):
        read_trace(path)


def test_servegen_without_lengths_or_load(tmp_path: Path) -> None:
    path = samples.servegen(tmp_path)
    assert "0 .. 1200 s" in str(refused(path, start_s=5000.0))
    assert "client [9]" in str(refused(path, clients=[9]))
    assert "no request" in str(refused(path, clients=[2], missing_lengths="drop"))
    (tmp_path / "language_m-tiny_lengths_quantiles.parquet").unlink()
    with pytest.raises(TraceError, match=r"quantiles.*does not exist"):
        read_trace(path)


def unharmed(path: Path, **options: object) -> None:
    """Reading gives a table or a TraceError, nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert len(read_trace(path, **options)) >= 1  # type: ignore[arg-type]
        except TraceError as error:
            assert error.problem and error.mend


mutations = st.lists(
    st.tuples(st.sampled_from(["set", "insert", "delete", "cut", "repeat"]), st.integers(0, 10**6),
              st.binary(min_size=1, max_size=4)),
    min_size=1, max_size=4,
)  # fmt: skip


def mutate(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, new in changes:
        at = place % (len(data) + 1)
        if kind == "cut":
            data = data[:at]
        elif kind == "repeat":
            data = data[:at] + data[max(0, at - 40) :]
        else:
            skip = {"set": len(new), "insert": 0, "delete": 2}[kind]
            data = data[:at] + (b"" if kind == "delete" else new) + data[at + skip :]
    return data


@QUICK
@given(name=st.sampled_from(sorted(samples.TEXTS)), changes=mutations)
def test_mutated_text(name: str, changes: list[tuple[str, int, bytes]], tmp_path: Path) -> None:
    path = put(tmp_path / name, mutate(samples.TEXTS[name].encode(), changes))
    unharmed(path)
    unharmed(path, format=name.split(".")[0])


@QUICK
@given(name=st.sampled_from(sorted(samples.TEXTS)), changes=mutations)
def test_mutated_gzip(name: str, changes: list[tuple[str, int, bytes]], tmp_path: Path) -> None:
    unharmed(put(tmp_path / name, mutate(gzip.compress(samples.TEXTS[name].encode()), changes)))


@settings(QUICK, max_examples=60)
@given(changes=mutations)
def test_mutated_parquet(changes: list[tuple[str, int, bytes]], tmp_path: Path) -> None:
    data = router_mix(20).write(tmp_path / "t.parquet").read_bytes()
    unharmed(put(tmp_path / "m.parquet", mutate(data, changes)))
    data = samples.servegen(tmp_path).read_bytes()
    unharmed(put(tmp_path / "language_m-tiny_trace.parquet", mutate(data, changes)))


@QUICK
@given(data=st.binary(max_size=200), start=st.sampled_from([b"", b"PAR1", b"\x1f\x8b", b"{"]))
def test_random_bytes(data: bytes, start: bytes, tmp_path: Path) -> None:
    path = put(tmp_path / "r.csv", start + data)
    for format in ("auto", "table", "azure", "mooncake", "generic", "servegen"):
        unharmed(path, format=format)
