"""Whatever a trace holds: a request table that keeps its rules, or a TraceError that names it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.workloads import COLUMNS, RequestTable, read_trace
from tests.fuzzing import CONTROLS, NUMBERS, TEXTS, Effort, damaged, efforts, nested
from tests.workloads.checks import check_read
from tests.workloads.samples import TEXTS as FILES
from tests.workloads.samples import WHOLE

CSV_FILES = {name: text for name, text in FILES.items() if name.endswith(".csv")}
CSV_FILES["whole.csv"] = WHOLE
LINES = {
    "mooncake.jsonl": FILES["mooncake.jsonl"],
    "table.jsonl": "".join(
        json.dumps({"arrival_s": t, "prompt_tokens": 5, "output_tokens": 3, "tenant": "a"}) + "\n"
        for t in (0, 1.5, 2)
    ),
    "dates.jsonl": "".join(
        json.dumps({"arrival_s": f"2024-05-10 00:00:0{i}", "prompt_tokens": 5, "output_tokens": i})
        + "\n"
        for i in (1, 2, 3)
    ),
}
TOKENS = [text.encode() for text in (*TEXTS, *CONTROLS)] + [
    *b', ; "" "\n \r\n \r\r \n\n [ ] { } \xef\xbb\xbf \xff\xfe \xc3 PAR1 \x1f\x8b ,,,'.split(b" "),
    b"\n" * 3,
    b"1e999",
    b"NaN",
    b"[" * 1200,
]
CELLS = st.sampled_from(
    [*TEXTS, *(str(n)[:500] for n in NUMBERS), *CONTROLS, "a,b", '"', "''", "a\nb", "IW-F", "7"]
)


def written(rows: list[list[str]], separator: str = ",", end: str = "\n") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=end).writerows(rows)
    return text.getvalue()


OPTIONS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "sort": st.booleans(),
        "rebase": st.booleans(),
        "on_zero": st.sampled_from(["error", "drop", "one"]),
    },
)


@efforts
@pytest.mark.parametrize("name", CSV_FILES)
def test_csv_cells(effort: Effort, name: str, tmp_path: Path) -> None:
    rows = [line.split(",") for line in CSV_FILES[name].splitlines()]
    path = tmp_path / name

    @effort(20)
    @given(st.data(), OPTIONS)
    def check(data: st.DataObject, options: dict[str, Any]) -> None:
        changed = [list(row) for row in rows]
        line = data.draw(st.integers(1, len(rows) - 1))
        at = data.draw(st.integers(0, len(rows[0]) - 1))
        changed[line][at] = cell = data.draw(CELLS)
        separator = data.draw(st.sampled_from(",;\t"))
        end = data.draw(st.sampled_from(["\n", "\r\n"]))
        mark = data.draw(st.sampled_from(["", "\ufeff", end]))
        path.write_bytes((mark + written(changed, separator, end)).encode())
        error = check_read(path, lambda file: read_trace(file, **options))
        if error is not None and "\n" not in cell and "\r" not in cell:
            # The line of the cell, or the one after, which may now arrive too early.
            first = line + 1 + (mark == end)
            assert error.line in (None, first, first + 1), str(error)
            assert error.line is not None or "every request has 0" in str(error), str(error)
            assert error.column is not None, str(error)

    check()


@efforts
@pytest.mark.parametrize("name", CSV_FILES)
def test_csv_columns_and_rows(effort: Effort, name: str, tmp_path: Path) -> None:
    rows = [line.split(",") for line in CSV_FILES[name].splitlines()]
    path = tmp_path / name
    names = st.sampled_from([*COLUMNS, *TEXTS, *CONTROLS, *rows[0]])

    @effort(15)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        changed = [list(row) for row in rows]
        for _ in range(data.draw(st.integers(1, 2))):
            at = data.draw(st.integers(0, max(len(changed[0]) - 1, 0)))
            to = data.draw(st.integers(0, max(len(changed[0]) - 1, 0)))
            line = data.draw(st.integers(0, len(changed) - 1))
            what = data.draw(st.sampled_from("lose repeat rename move short long swap".split()))
            if what == "rename":
                changed[0][at : at + 1] = [data.draw(names)]
            elif what == "short":
                changed[line] = changed[line][:at]
            elif what == "long":
                changed[line] = changed[line] + [data.draw(CELLS)]
            elif what == "swap":
                changed[line], changed[-1] = changed[-1], changed[line]
            else:
                for row in changed:
                    if what == "lose":
                        del row[at : at + 1]
                    elif what == "repeat":
                        row[to:to] = row[at : at + 1]
                    elif at < len(row):
                        row.insert(to, row.pop(at))
        path.write_text(written(changed), encoding="utf-8", newline="")
        check_read(path)
        check_read(path, RequestTable.read)

    check()


@efforts
@pytest.mark.parametrize("name", [*CSV_FILES, *LINES])
def test_damaged_texts(effort: Effort, name: str, tmp_path: Path) -> None:
    text = (CSV_FILES | LINES)[name].encode()
    path = tmp_path / name

    @effort(15)
    @given(damaged(text, TOKENS), st.sampled_from(["plain", "gzip", "cut gzip", "bad gzip"]))
    def check(data: bytes, packing: str) -> None:
        if packing != "plain":
            data = gzip.compress(data, 1)
        if packing == "cut gzip":
            data = data[: len(data) // 2]
        if packing == "bad gzip" and len(data) > 20:
            data = data[:20] + bytes([data[20] ^ 0x55]) + data[21:]
        path.write_bytes(data)
        check_read(path)
        check_read(path, RequestTable.read)

    check()


@efforts
def test_arbitrary_bytes(effort: Effort, tmp_path: Path) -> None:
    parts = st.lists(st.sampled_from(TOKENS) | st.binary(max_size=5), max_size=10)
    path = tmp_path / "bytes.csv.gz"

    @effort(50)
    @given(parts.map(b"".join), st.sampled_from(["auto", "table", "generic", "mooncake", "arena"]))
    def check(data: bytes, format: str) -> None:
        path.write_bytes(data)
        error = check_read(path, lambda file: read_trace(file, format))
        assert error is not None
        assert check_read(path, RequestTable.read) is not None

    check()


@efforts
@pytest.mark.parametrize("name", LINES)
def test_json_values(effort: Effort, name: str, tmp_path: Path) -> None:
    records = [json.loads(line) for line in LINES[name].splitlines()]
    path = tmp_path / name
    keys = st.sampled_from([*records[0], *COLUMNS]) | st.text(max_size=3)
    values = nested(st.text(max_size=3)) | st.sampled_from([-1.5, 1.5, 2**62])

    @effort(25)
    @given(st.data(), OPTIONS)
    def check(data: st.DataObject, options: dict[str, Any]) -> None:
        changed = [dict(record) for record in records]
        line = data.draw(st.integers(0, len(records) - 1))
        key = data.draw(keys)
        if data.draw(st.sampled_from([True, True, True, False])):
            changed[line][key] = data.draw(values)
        else:
            changed[line].pop(key, None)
        text = "\n".join(json.dumps(r, ensure_ascii=False) for r in changed)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        check_read(path, lambda file: read_trace(file, **options))
        path.write_text("\n".join(json.dumps(record) for record in changed), encoding="utf-8")
        error = check_read(path, lambda file: read_trace(file, **options))
        if error is not None:
            assert error.line in (None, 1, line + 1, line + 2)

    check()
