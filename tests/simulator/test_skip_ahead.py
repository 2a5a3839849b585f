"""Admissions that pass over requests which do not fit, held against answers by hand."""

from __future__ import annotations

import pytest

from tests.simulator.both import Run, case, column, engine, on_both
from tests.simulator.case import Row


@on_both
@pytest.mark.parametrize(("skip", "admitted"), [(0, [0, 160, 160]), (1, [0, 170, 0])])
def test_skip_ahead_admits_behind_a_misfit(run: Run, skip: int, admitted: list[int]) -> None:
    """50 of 100 tokens are in service until 160, or 170 with the 10: 60 do not fit, 10 do."""
    rows = [Row(0, 50, 2), Row(0, 60, 1), Row(0, 10, 1)]
    fleet = [engine(kv_capacity_tokens=100, skip_ahead=skip)]
    assert column(run(case(rows, fleet)), "admit_ps") == admitted


@on_both
@pytest.mark.parametrize(("skip", "at_once"), [(1, False), (2, True)])
def test_no_more_are_skipped_than_may_be(run: Run, skip: int, at_once: bool) -> None:
    rows = [Row(0, 50, 9), Row(0, 60, 1), Row(0, 70, 1), Row(0, 10, 1)]
    trace = run(case(rows, [engine(kv_capacity_tokens=100, skip_ahead=skip)]))
    assert (column(trace, "admit_ps")[3] == 0) is at_once


@on_both
def test_where_nothing_is_in_service_the_head_goes_first(run: Run) -> None:
    """60 has been passed over by 10, and at 170 55 may not pass it again."""
    rows = [Row(0, 50, 2), Row(0, 60, 1), Row(0, 10, 1), Row(120, 55, 1)]
    trace = run(case(rows, [engine(kv_capacity_tokens=100, skip_ahead=5)]))
    assert column(trace, "admit_ps") == [0, 170, 0, 330]
