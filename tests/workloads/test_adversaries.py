"""Attacks change what the attackers send, nothing of the others, and nothing beyond recall."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.workloads import (
    COLUMNS,
    Labels,
    RequestTable,
    application_costs,
    copilot_calls,
    heaviest,
    honest_rows,
    honest_tenant,
    idle_then_burst,
    inflate_calls,
    misdeclare_application,
    pad_prompts,
    sent_by,
    split_identities,
    unmask,
    vtc_suite,
)
from tests.fuzzing import quick

ATTACKS: dict[str, Callable[..., RequestTable]] = {
    attack.__name__: attack
    for attack in (
        split_identities,
        idle_then_burst,
        misdeclare_application,
        inflate_calls,
        pad_prompts,
    )
}
COPILOT = copilot_calls(400, 3, users=30, length_divisor=8)


@st.composite
def tables(draw: st.DrawFn) -> RequestTable:
    """Few calls of few tenants and applications, some of them in interactions."""
    owners = draw(st.lists(st.integers(0, 3), min_size=2, max_size=8))  # of each interaction
    which = draw(st.lists(st.integers(0, len(owners) - 1), min_size=2, max_size=30))
    n = len(which)
    arrival = np.cumsum(draw(st.lists(st.sampled_from([0.0, 0.5, 7.3]), min_size=n, max_size=n)))
    tokens = st.lists(st.integers(1, 3000), min_size=n, max_size=n)
    index = [which[:i].count(each) for i, each in enumerate(which)]
    columns = {
        "arrival_s": arrival,
        "prompt_tokens": draw(tokens),
        "output_tokens": draw(tokens),
        "tenant": [f"t{owners[each]}" for each in which],
        "application": [f"a{each % 3}" for each in which],
        "interaction": which,
        "call_index": index,
        "calls_in_interaction": [which.count(each) for each in which],
        "deadline_s": arrival + 5.0,
    }
    if draw(st.booleans()):
        columns["request_id"] = draw(st.permutations(range(n)))
    return RequestTable.from_columns(**columns)


def attacked(name: str, table: RequestTable) -> RequestTable:
    if name == "misdeclare_application":
        return misdeclare_application(table, application=table.application[len(table) - 1])
    return ATTACKS[name](table)


def by_id(table: RequestTable, rows: np.ndarray) -> dict[int, tuple]:
    columns = [getattr(table, name) for name in COLUMNS]
    values = [c.values() if isinstance(c, Labels) else c for c in columns]
    return {int(table.request_id[i]): tuple(v[i] for v in values) for i in np.flatnonzero(rows)}


@pytest.mark.parametrize("name", ATTACKS)
@quick(40)
@given(table=tables())
def test_nothing_of_the_honest_changes(name: str, table: RequestTable) -> None:
    found = attacked(name, table)
    attackers = heaviest(table)
    assert heaviest(found) == attackers
    mine, before = sent_by(found, attackers), sent_by(table, attackers)
    assert by_id(found, ~mine) == by_id(table, ~before)
    # Not even their order.
    assert list(found.request_id[~mine]) == list(table.request_id[~before])
    assert found.arrival_s[-1] == table.arrival_s[-1]


@pytest.mark.parametrize("name", ATTACKS)
@quick(40)
@given(table=tables())
def test_who_and_what_it_is_can_be_told(name: str, table: RequestTable) -> None:
    found = attacked(name, table)
    rows, true = honest_rows(found, table), unmask(found, table)
    assert sorted(rows) == list(range(len(table)))
    assert honest_tenant(found) == table.tenant[rows] == true.tenant
    assert true.application == table.application[rows]
    for column in ("request_id", "interaction", "call_index", "calls_in_interaction"):
        assert np.array_equal(getattr(true, column), getattr(table, column)[rows])
    assert np.array_equal(found.output_tokens, table.output_tokens[rows])
    if name != "pad_prompts":
        assert np.array_equal(found.prompt_tokens, table.prompt_tokens[rows])
    if name != "idle_then_burst":
        assert list(rows) == list(range(len(table)))


@pytest.mark.parametrize("name", ATTACKS)
@quick(40)
@given(table=tables())
def test_interactions_stay_ordered(name: str, table: RequestTable) -> None:
    found = attacked(name, table)
    for interaction in np.unique(found.interaction):
        assert (np.diff(found.call_index[found.interaction == interaction]) == 1).all()
    allowed = found.deadline_s - found.arrival_s
    assert allowed == pytest.approx(5.0)


@quick(40)
@given(table=tables(), identities=st.integers(1, 5))
def test_identities_share_whole_interactions(table: RequestTable, identities: int) -> None:
    (name,) = heaviest(table)
    found = split_identities(table, identities=identities)
    mine = sent_by(found, (name,))
    names = found.tenant.values()[mine]
    interactions = np.unique(found.interaction[mine])
    owners = [set(names[found.interaction[mine] == each]) for each in interactions]
    assert all(len(each) == 1 for each in owners)
    counts = [sum({used} == owner for owner in owners) for used in set(names)]
    assert len(counts) == min(identities, len(interactions))
    assert max(counts) - min(counts) <= 1
    assert names[0] == name


def test_identities_of_several_attackers() -> None:
    found = split_identities(COPILOT, ["account-0", "account-1"], 3)
    used = {found.tenant.names[code] for code in np.unique(found.tenant.codes)}
    assert {"account-0", "account-0#2", "account-1#1"} <= used
    assert "account-2#1" not in used
    assert honest_tenant(found) == COPILOT.tenant


@quick(40)
@given(table=tables(), period_s=st.sampled_from([0.5, 3.0, 7.3, 40.0]))
def test_bursts_come_at_the_end_of_a_period(table: RequestTable, period_s: float) -> None:
    found = idle_then_burst(table, period_s=period_s)
    mine = sent_by(found, heaviest(table))
    sent, meant = found.arrival_s[mine], table.arrival_s[honest_rows(found, table)][mine]
    assert ((sent >= meant) & (sent < meant + period_s + 1e-9)).all()
    at_end = np.abs(sent / period_s - np.rint(sent / period_s)) < 1e-9
    assert (at_end | (sent == table.arrival_s[-1])).all()


def test_the_costliest_application_of_others_is_claimed() -> None:
    costs = application_costs(COPILOT)
    mine = sent_by(COPILOT, heaviest(COPILOT))
    found = misdeclare_application(COPILOT)
    (claimed,) = set(found.application.values()[mine])
    others = set(COPILOT.application.values()[~mine])
    assert claimed == max(others, key=lambda name: application_costs(COPILOT, ~mine)[name])
    rows = COPILOT.application.values() == claimed
    expected = COPILOT.prompt_tokens[rows].mean() + 2 * COPILOT.output_tokens[rows].mean()
    assert costs[claimed] == pytest.approx(expected)


@quick(40)
@given(table=tables(), calls=st.integers(3, 12))
def test_inflated_calls_are_always_in_the_middle(table: RequestTable, calls: int) -> None:
    found = inflate_calls(table, calls=calls)
    mine = sent_by(found, heaviest(table))
    index, size = found.call_index[mine], found.calls_in_interaction[mine]
    assert (index >= 1).all() and (index + 1 < size).all() and (size >= calls).all()


@quick(40)
@given(table=tables(), factor=st.sampled_from([1.0, 1.5, 3.0, 1e300]))
def test_padding_conserves_all_else(table: RequestTable, factor: float) -> None:
    found = pad_prompts(table, factor=factor, max_prompt_tokens=2000)
    mine = sent_by(found, heaviest(table))
    before, after = table.prompt_tokens[mine], found.prompt_tokens[mine]
    expected = np.maximum(before, np.minimum(np.ceil(before * factor), 2000))
    assert np.array_equal(after, expected)
    assert pad_prompts(table, factor=1e300).prompt_tokens.max() == table.prompt_tokens.max()


def test_the_heaviest_tenants() -> None:
    table = vtc_suite("overload", 0, duration_s=30.0)
    assert heaviest(table) == ("1",) and heaviest(table, 2) == ("1", "0")
    assert heaviest(split_identities(table, identities=8)) == ("1",)


def test_a_name_alone_is_one_tenant() -> None:
    assert pad_prompts(COPILOT, "account-1") == pad_prompts(COPILOT, ["account-1"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_identities(COPILOT, identities=0), "identities is 0; give a whole"),
        (lambda: split_identities(COPILOT, ["nobody"]), "no request is of tenant 'nobody'; .*acc"),
        (
            lambda: split_identities(split_identities(COPILOT)),
            "'account-0#1' is named like an identity",
        ),
        (lambda: idle_then_burst(COPILOT, period_s=0.0), "period_s is 0"),
        (lambda: idle_then_burst(COPILOT, period_s=np.inf), "period_s is inf"),
        (lambda: misdeclare_application(COPILOT, application="app-99"), "no request is of app"),
        (lambda: misdeclare_application(vtc_suite("overload")), "no application that could be"),
        (lambda: inflate_calls(COPILOT, calls=2), "calls is 2; give a whole number of 3"),
        (lambda: pad_prompts(COPILOT, factor=0.5), "factor is 0.5"),
        (lambda: pad_prompts(COPILOT, max_prompt_tokens=0), "max_prompt_tokens is 0"),
        (lambda: heaviest(COPILOT, 1000), "count is 1000, but there are 30 tenants"),
        (lambda: honest_rows(COPILOT, COPILOT[:10]), "request 10 is not in the honest table"),
    ],
)
def test_what_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
