from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.workloads import COLUMNS, TIERS, Labels, RequestTable, TraceError, router_mix

ENDINGS = ("t.parquet", "t.csv", "t.csv.gz")


def small(**columns: object) -> RequestTable:
    base = {"arrival_s": [0.0, 0.5, 0.5], "prompt_tokens": [3, 4, 5], "output_tokens": [1, 2, 3]}
    return RequestTable.from_mapping({**base, **columns})


def test_defaults_of_a_minimal_table() -> None:
    table = small()
    assert table.given == ("arrival_s", "prompt_tokens", "output_tokens")
    assert table.request_id.tolist() == table.interaction.tolist() == [0, 1, 2]
    assert table.deadline_s.tolist() == [np.inf] * 3
    assert table.predicted_output_tokens.tolist() == table.prefix_id.tolist() == [-1] * 3
    assert table.tier.names == TIERS and table.tier.codes.tolist() == [0, 0, 0]
    assert table.tenant[0] == "default"
    assert list(table.to_frame().columns) == list(COLUMNS)
    assert list(table.to_frame(all_columns=False).columns) == list(table.given)


def test_dtypes_are_those_the_kernel_reads() -> None:
    table = small(priority=np.array([1, 2, 3], np.int8), prompt_tokens=np.array([3.0, 4.0, 5.0]))
    for name, rule in COLUMNS.items():
        column = getattr(table, name)
        if rule.kind == "label":
            assert column.codes.dtype == np.int32
        else:
            assert column.dtype == (np.float64 if rule.kind == "time" else np.int64)
            assert column.flags.c_contiguous


def test_arrival_ps_is_rounded_to_whole_picoseconds() -> None:
    table = small(arrival_s=[0.1, 0.3, 8_999_999.0])
    assert table.arrival_ps.tolist() == [10**11, 3 * 10**11, 8_999_999 * 10**12]
    assert table.arrival_ps.dtype == np.int64


def test_columns_can_be_changed_neither_by_nor_behind_the_table() -> None:
    prompts = np.array([3, 4, 5])
    table = small(prompt_tokens=prompts)
    prompts[0] = 99
    assert table.prompt_tokens[0] == 3
    with pytest.raises(ValueError, match="read-only"):
        table.prompt_tokens[0] = 7
    with pytest.raises(ValueError, match="read-only"):
        pickle.loads(pickle.dumps(table)).prompt_tokens[0] = 7


def test_slice_keeps_ids_times_and_shares_memory() -> None:
    table = router_mix(100)
    part = table[10:20]
    assert part.request_id.tolist() == list(range(10, 20))
    assert part.interaction.tolist() == list(range(10, 20))
    assert np.shares_memory(part.arrival_s, table.arrival_s)
    assert part == table[:20][10:] and part != table[11:21]
    with pytest.raises(ValueError, match="empty"):
        table[5:5]
    with pytest.raises(TypeError, match="slice"):
        table[5]  # type: ignore[index]


def test_a_part_counts_from_its_start_and_deadlines_move_along() -> None:
    arrival = np.arange(10.0)
    table = RequestTable.from_columns(
        arrival_s=arrival, prompt_tokens=2, output_tokens=3, deadline_s=arrival + 4.0
    )
    part = table.part(3.0, 6.0)
    assert part.request_id.tolist() == [3, 4, 5]
    assert part.arrival_s.tolist() == [0.0, 1.0, 2.0]
    assert part.deadline_s.tolist() == [4.0, 5.0, 6.0]
    fast = table.part(2.0, np.inf, rate_scale=2.0)
    assert fast.arrival_s.tolist() == [k / 2 for k in range(8)]
    assert (fast.deadline_s - fast.arrival_s).tolist() == [4.0] * 8
    assert table.part(0.0, np.inf) == table
    assert "deadline_s" not in small().part(0.5, 1.0).given
    with pytest.raises(ValueError, match=r"no request arrives between 20 s and 30 s; .* 9 s"):
        table.part(20.0, 30.0)
    with pytest.raises(ValueError, match="no request arrives between 5 s and 4 s"):
        table.part(5.0, 4.0)
    for arguments in ((-1.0, 2.0), (np.nan, 2.0), (0.0, 2.0, 0.0), (0.0, 2.0, np.inf)):
        with pytest.raises(ValueError, match="it must be"):
            table.part(*arguments)


def test_replace_checks_and_shares() -> None:
    table = router_mix(10)
    changed = table.replace(priority=3, tenant="a")
    assert changed.priority.tolist() == [3] * 10 and changed.tenant[9] == "a"
    assert np.shares_memory(changed.arrival_s, table.arrival_s)
    with pytest.raises(TraceError, match="output_tokens"):
        table.replace(output_tokens=0)


def test_predictions() -> None:
    table = router_mix(20_000)
    assert (table.with_predictions(0.0).predicted_output_tokens == table.output_tokens).all()
    noisy = table.with_predictions(0.5, seed=1)
    assert noisy == table.with_predictions(0.5, seed=1) != table.with_predictions(0.5, seed=2)
    assert noisy.predicted_output_tokens.min() >= 1
    long = table.output_tokens > 100
    error = np.log(noisy.predicted_output_tokens[long] / table.output_tokens[long])
    assert abs(error.std() - 0.5) < 0.02 and abs(error.mean()) < 0.02
    with pytest.raises(ValueError, match="sigma"):
        table.with_predictions(-1.0)


def test_frame_round_trip() -> None:
    table = router_mix(50).replace(tier=["NIW", "IW-N"] * 25)
    assert RequestTable.from_frame(table.to_frame()) == table
    assert RequestTable.from_frame(table.to_frame().astype({"application": object})) == table
    filtered = table.to_frame().iloc[::7]
    assert len(RequestTable.from_frame(filtered)) == 8


def test_labels_compare_by_text_and_keep_known_names_first() -> None:
    ab = Labels.encode(["b", "a", "b"])
    assert ab.names == ("b", "a") and ab.codes.tolist() == [0, 1, 0]
    assert ab == Labels.encode(["b", "a", "b"], known=("a",)) and ab != Labels.encode(["b"] * 3)
    assert Labels.encode(pd.Categorical(["z", "y"], categories=["x", "y", "z"])).names == ("z", "y")
    assert ab[1:].values().tolist() == ["a", "b"]


text = st.text(st.characters(codec="utf-8"), max_size=6).filter(str.isprintable)
tables = st.integers(1, 8).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "arrival_s": st.lists(st.floats(0, 9e6), min_size=n, max_size=n).map(sorted),
            "prompt_tokens": st.lists(st.integers(1, 2**31 - 1), min_size=n, max_size=n),
            "output_tokens": st.lists(st.integers(1, 2**31 - 1), min_size=n, max_size=n),
        },
        optional={
            "request_id": st.lists(st.integers(0, 2**62), min_size=n, max_size=n, unique=True),
            "tenant": st.lists(text, min_size=n, max_size=n),
            "tier": st.lists(st.sampled_from(TIERS), min_size=n, max_size=n),
            "priority": st.lists(st.integers(-(2**63), 2**63 - 1), min_size=n, max_size=n),
            "deadline_s": st.lists(st.floats(9e6, np.inf), min_size=n, max_size=n),
            "prefix_id": st.lists(st.integers(-1, 2**63 - 1), min_size=n, max_size=n),
        },
    )
)


@settings(max_examples=40, deadline=None)
@given(columns=tables, ending=st.sampled_from(ENDINGS))
def test_files_round_trip_exactly(
    columns: dict[str, object], ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = RequestTable.from_mapping(columns)
    path = table.write(tmp_path_factory.mktemp("t") / ending)
    again = RequestTable.read(path)
    assert again == table and again.given == table.given
    assert (again.arrival_ps == table.arrival_ps).all()
    assert [entry.name for entry in path.parent.iterdir()] == [ending]


@pytest.mark.parametrize("ending", ENDINGS)
def test_equal_tables_are_equal_files(ending: str, tmp_path: Path) -> None:
    first = router_mix(500).write(tmp_path / ending)
    other = tmp_path / "other"
    other.mkdir()
    assert first.read_bytes() == router_mix(500).write(other / ending).read_bytes()


def test_write_refuses_other_endings_and_absent_folders(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"t\.txt.*ending"):
        small().write(tmp_path / "t.txt")
    with pytest.raises(TraceError, match="existing folder"):
        small().write(tmp_path / "absent" / "t.csv")


@pytest.mark.parametrize(
    ("columns", "column", "words"),
    [
        ({"arrival_s": [0, -1, 2]}, "arrival_s", "row 1 .*earlier"),
        ({"arrival_s": [-1, 1, 2]}, "arrival_s", "row 0 .*negative"),
        ({"arrival_s": [0, np.nan, 2]}, "arrival_s", "row 1 .*finite"),
        ({"arrival_s": [0, 1, np.inf]}, "arrival_s", "row 2 .*finite"),
        ({"arrival_s": [0, 1, 9.1e6]}, "arrival_s", "row 2 .*104 days"),
        ({"prompt_tokens": [1, 0, 1]}, "prompt_tokens", "row 1 .*1 .. 2147483647"),
        ({"output_tokens": [1, 1, 2**31]}, "output_tokens", "row 2 .*out of range"),
        ({"output_tokens": [1, 1.5, 1]}, "output_tokens", "row 1 .*not a whole number"),
        ({"output_tokens": [1, np.nan, 1]}, "output_tokens", "row 1 .*not a whole number"),
        ({"output_tokens": ["a", "b", "c"]}, "output_tokens", "not numbers"),
        ({"output_tokens": [1, 1]}, "output_tokens", "2 values .*for 3 requests"),
        ({"deadline_s": [1, 0.1, 1]}, "deadline_s", "row 1 .*at or after"),
        ({"predicted_output_tokens": 0}, "predicted_output_tokens", "zero"),
        ({"system_tokens": [1, 5, 1]}, "system_tokens", "row 1 .*exceeds"),
        ({"prefix_tokens": 1}, "prefix_tokens", "no prefix_id"),
        ({"call_index": [0, 1, 0]}, "call_index", "row 1 .*calls_in_interaction"),
        ({"request_id": [5, 4, 5]}, "request_id", "row 2 .*twice"),
        ({"tier": ["NIW", "gold", "NIW"]}, "tier", "row 1 .*not a tier"),
        ({"tenant": ["a", None, "a"]}, "tenant", "row 1 .*not text"),
        ({"tenant": ["a", "b", "a\n"]}, "tenant", "row 2 .*control"),
        ({"tenant": 5}, "tenant", "not text"),
        ({"tenant": [["a"], ["b"], ["c"]]}, "tenant", "2 dimension"),
        ({"deadline": 3.0}, "deadline", "not a column"),
    ],
)
def test_bad_columns_are_named(columns: dict[str, object], column: str, words: str) -> None:
    with pytest.raises(TraceError, match=words) as caught:
        small(**columns)
    assert caught.value.column == column and caught.value.mend


def test_required_columns_and_rows() -> None:
    with pytest.raises(TraceError, match=r"output_tokens.*missing"):
        RequestTable.from_columns(arrival_s=[0], prompt_tokens=[1])
    with pytest.raises(TraceError, match="no requests"):
        RequestTable.from_columns(arrival_s=[], prompt_tokens=[], output_tokens=[])


def test_a_column_named_like_an_argument_is_just_unknown() -> None:
    frame = small().to_frame().assign(source="x")
    with pytest.raises(TraceError, match="'source'"):
        RequestTable.from_frame(frame)


def test_error_survives_pickling() -> None:
    error = TraceError("is bad", mend="Mend it", path="f.csv", line=3, column="c")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "f.csv, line 3, column 'c': is bad. Mend it"
    assert again.line == 3


def test_predictions_within_a_spread_of_the_truth() -> None:
    table = RequestTable.from_columns(
        arrival_s=np.arange(2000.0), prompt_tokens=10, output_tokens=400
    )
    predicted = table.with_predictions(spread=0.5, seed=1).predicted_output_tokens
    assert predicted.min() >= 200 and predicted.max() <= 600
    assert predicted.mean() == pytest.approx(400, rel=0.03)
    assert (table.with_predictions(spread=0.0).predicted_output_tokens == 400).all()
    with pytest.raises(ValueError, match="spread"):
        table.with_predictions(spread=1.5)
