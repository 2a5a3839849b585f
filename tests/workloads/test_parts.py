"""Tables in parts: together the whole, with the errors of the whole, and streams by seed."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.workloads import (
    Labels,
    RequestTable,
    TraceError,
    drawn_parts,
    parquet_rows,
    predicted_parts,
    read_parts,
    router_classes,
    router_mix_parts,
)
from tests.workloads.samples import TABLE, WHOLE, edit

SUFFIXES = [".parquet", ".csv", ".csv.gz"]


def sample(n: int = 57) -> RequestTable:
    rng = np.random.default_rng(0)
    return RequestTable.from_columns(
        arrival_s=np.sort(rng.integers(0, 20, n) / 4),
        prompt_tokens=rng.integers(1, 100, n),
        output_tokens=rng.integers(1, 100, n),
        tenant=[f"tenant {k}" for k in rng.integers(0, 9, n)],
        tier=[("NIW", "IW-F")[k] for k in rng.integers(0, 2, n)],
    )


def joined(parts: Iterable[RequestTable]) -> RequestTable:
    first, *others = parts
    for part in others:
        first = first.followed_by(part)
    return first


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rows", [1, 10, 57, 1000])
def test_the_parts_are_the_whole(suffix: str, rows: int, tmp_path: Path) -> None:
    table = sample()
    path = table.write(tmp_path / f"log{suffix}")
    parts = list(read_parts(path, rows))
    assert all(len(part) <= rows for part in parts)
    assert np.concatenate([part.request_id for part in parts]).tolist() == list(range(57))
    assert joined(parts) == table


def test_own_request_ids_and_every_column(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(WHOLE)
    parts = list(read_parts(path, 1))
    assert [part.request_id.tolist() for part in parts] == [[4], [5], [9]]
    whole = RequestTable.read(path)
    assert [part == whole[i : i + 1] for i, part in enumerate(parts)] == [True] * 3


def test_quoted_line_breaks_and_blank_lines_stay_whole(tmp_path: Path) -> None:
    rows = ["0,1,2,a", "", '1,1,2,"b ""c"""', "2,1,2,d", "", "", "3,1,2,e"]
    path = tmp_path / "log.csv"
    path.write_text("\n\narrival_s,prompt_tokens,output_tokens,tenant\n" + "\n".join(rows))
    for size in (1, 2, 3, 10):
        assert joined(read_parts(path, size)) == RequestTable.read(path)
    path.write_text('arrival_s,prompt_tokens,output_tokens,tenant\n0,1,2,"a\nb"\n1,1,2,c\n')
    with pytest.raises(TraceError, match="control character"):
        list(read_parts(path, 1))
    path.write_bytes(b"arrival_s,prompt_tokens,output_tokens\r0,1,2\r1,1,2\r")
    assert joined(read_parts(path, 1)) == RequestTable.read(path)


BAD = [
    edit(TABLE, 3, "prompt_tokens", "0"),
    edit(TABLE, 4, "prompt_tokens", "many"),
    edit(TABLE, 4, "arrival_s", "0.1"),
    edit(TABLE, 3, "output_tokens", ""),
    TABLE + "3.0,a,10\n",
    TABLE.replace("tenant", "user"),
    TABLE.replace("output_tokens", "tenants,x")[:30],
    TABLE.splitlines()[0] + "\n",
    TABLE + '4.0,"a,1,2\n',
    TABLE + "4.0,\xff,1,2\n",
    "",
    " \n\n",
]


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("packed", [False, True])
def test_a_csv_fault_is_told_as_by_the_whole_reader(
    text: str, packed: bool, tmp_path: Path
) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(gzip.compress(text.encode("latin-1")) if packed else text.encode("latin-1"))
    with pytest.raises(TraceError) as whole:
        RequestTable.read(path)
    for rows in (1, 2, 100):
        with pytest.raises(TraceError) as error:
            list(read_parts(path, rows))
        assert str(error.value) == str(whole.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [("prompt_tokens", 0), ("arrival_s", 0.0), ("output_tokens", None), ("arrival_s", np.nan)],
)
def test_a_parquet_fault_names_the_row_of_the_file(
    column: str, value: float | None, tmp_path: Path
) -> None:
    frame = sample().to_frame(all_columns=False).astype({"output_tokens": object})
    frame.loc[40, column] = value
    frame["output_tokens"] = frame["output_tokens"].astype("Int64")
    path = tmp_path / "log.parquet"
    frame.to_parquet(path)
    with pytest.raises(TraceError) as whole:
        RequestTable.read(path)
    for rows in (1, 40, 100):
        with pytest.raises(TraceError) as error:
            list(read_parts(path, rows))
        assert str(error.value) == str(whole.value)
    assert "row 41 (counted from 1)" in str(whole.value)


@pytest.mark.parametrize("suffix", [".parquet", ".csv.gz"])
def test_a_cut_file(suffix: str, tmp_path: Path) -> None:
    path = sample(5000).write(tmp_path / f"log{suffix}")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(TraceError, match=r"not readable Parquet|cut short or damaged"):
        list(read_parts(path, 10))


def test_repeated_ids_are_seen_within_a_part_and_where_they_ascend(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(edit(WHOLE, 4, "request_id", "5"))
    for rows in (1, 2, 3):
        with pytest.raises(TraceError, match=r"line 4.*'request_id': the value 5 occurs twice"):
            list(read_parts(path, rows))


def test_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a part of 0 requests"):
        read_parts(tmp_path / "log.csv", 0)
    with pytest.raises(TraceError, match="does not exist"):
        list(read_parts(tmp_path / "log.csv"))
    with pytest.raises(TraceError, match="is a folder"):
        list(read_parts(tmp_path))
    with pytest.raises(ValueError, match="a stream of 0 requests"):
        router_mix_parts(0)
    with pytest.raises(ValueError, match="poisson or gamma"):
        router_mix_parts(10, arrivals="uniform")


def test_rows_of_a_file(tmp_path: Path) -> None:
    assert parquet_rows(sample().write(tmp_path / "log.parquet")) == 57
    assert parquet_rows(sample().write(tmp_path / "log.csv")) is None


def test_a_stream_goes_on_and_follows_from_its_seed() -> None:
    def stream(seed: int, rows: int = 4000) -> RequestTable:
        return joined(predicted_parts(router_mix_parts(10_000, 20.0, seed, rows), 0.5, seed))

    table = stream(3)
    assert len(table) == 10_000 and table == stream(3)
    assert table != stream(4)
    assert np.diff(table.arrival_s).min() > 0
    gaps = np.diff(table.arrival_s)
    assert gaps.mean() == pytest.approx(0.05, rel=0.05)
    assert gaps.std() == pytest.approx(0.05, rel=0.05)
    # Parts of a stream differ, and errors do not follow lengths.
    assert not np.array_equal(table.prompt_tokens[:2000], table.prompt_tokens[4000:6000])
    errors = np.log(table.predicted_output_tokens / table.output_tokens)
    assert errors.std() == pytest.approx(0.5, rel=0.05)
    assert abs(np.corrcoef(errors, np.log(table.output_tokens))[0, 1]) < 0.05


def test_a_part_as_long_as_the_stream_is_one_draw_with_a_child_seed() -> None:
    seen: list[tuple[int, int]] = []

    def draw(n: int, seed: int) -> RequestTable:
        seen.append((n, seed))
        table = router_classes(n=n, seed=seed)
        return table.replace(deadline_s=table.arrival_s + 5.0)

    (part,) = drawn_parts(draw, 20, seed=1)
    assert part == draw(*seen[0])
    table = joined(drawn_parts(draw, 20, seed=1, rows=7))
    assert [n for n, _ in seen[2:]] == [7, 7, 6] and len({seed for _, seed in seen}) == 3
    assert table.deadline_s - table.arrival_s == pytest.approx(5.0)


LABELS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=6)


@given(LABELS, LABELS, st.integers(0, 3))
def test_labels_follow_one_another(first: list[str], second: list[str], skipped: int) -> None:
    mine, theirs = Labels.encode(first), Labels.encode(second)
    both = mine.followed_by(theirs[min(skipped, len(second) - 1) :])
    assert both.values().tolist() == first + second[min(skipped, len(second) - 1) :]


def test_names_do_not_pile_up() -> None:
    held = Labels.encode(["0"])
    for number in range(1, 50):
        held = held.followed_by(Labels.encode([str(number)]))[-1:]
    assert len(held.names) == 2


def test_followed_by() -> None:
    table = sample()
    whole = table[:20].followed_by(table[20:])
    assert whole == table
    assert whole.tier.names == table.tier.names
    bare = RequestTable.from_columns(arrival_s=[9.0], prompt_tokens=[1], output_tokens=[2])
    longer = table.followed_by(bare)
    assert longer.tenant[57] == "default" and longer.tier[57] == "IW-F"
    assert bare.followed_by(bare).request_id.tolist() == [0, 1]
    with pytest.raises(TraceError, match=r"row 1 \(counted from 0\).*is earlier than"):
        bare.followed_by(table)
