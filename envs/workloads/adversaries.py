"""Tenants that game a scheduler: what they send instead, and who and what it really is.

Each attack is a function of a table and gives another one in which the rows of some tenants are
changed; of all others nothing changes, not even the order. The requests keep their `request_id`,
so that `unmask` finds what every one really is in the table before the attack; new identities are
named so that `honest_tenant` finds whose they are without it.

The attacks are those that FairServe (arXiv:2411.15997) and VTC (OSDI 2024) are open to: counters
and limits are kept by identity, charges are divided by what the application usually costs, and
later calls of an interaction are never throttled. How strong they are is assumed: no trace of
them is published.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .columns import MAX_TOKENS
from .labels import Labels
from .table import RequestTable

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

IDENTITY = re.compile(r"#\d+$")
"""How the name of an identity after a tenant's first ends: `account-0` has `account-0#1`, ..."""

_CLAIMS = ("tenant", "application", "interaction", "call_index", "calls_in_interaction")


def split_identities(
    table: RequestTable, tenants: Sequence[str] | None = None, identities: int = 8
) -> RequestTable:
    """Spread the calls of a tenant over several identities (Sybil), interaction by interaction.

    The interactions, in order of their first call, go to the identities in turn. The first
    identity keeps the tenant's name, so that a weight by name stays with it; the others are
    `NAME#1`, `NAME#2`, ... There are no more of them than the tenant has interactions.

    Args:
        table: The requests.
        tenants: Who attacks, by name; without it, `heaviest(table)`.
        identities: Identities of each attacker, its own among them.

    Raises:
        ValueError: A tenant is unknown, a name of the table looks like an identity, or
            `identities` is less than 1.
    """
    _whole("identities", identities, 1)
    names = list(table.tenant.names)
    if taken := [name for name in names if IDENTITY.search(name)]:
        raise ValueError(
            f"the tenant {taken[0]!r} is named like an identity of another; rename it so that its "
            "name does not end in # and a number"
        )
    codes = np.array(table.tenant.codes)
    for name in _attackers(table, tenants):
        rows = np.flatnonzero(sent_by(table, (name,)))
        _, first, which = np.unique(table.interaction[rows], return_index=True, return_inverse=True)
        identity = np.argsort(np.argsort(first))[which.reshape(-1)] % identities
        new = np.flatnonzero(identity > 0)
        codes[rows[new]] = len(names) + identity[new] - 1
        names += [f"{name}#{number}" for number in range(1, int(identity.max()) + 1)]
    return _changed(table, tenant=Labels(codes.astype(np.int32), tuple(names)))


def idle_then_burst(
    table: RequestTable, tenants: Sequence[str] | None = None, period_s: float = 30.0
) -> RequestTable:
    """Hold the calls of a tenant back and send those of a period at once, at its end.

    Periods end at the multiples of `period_s`, and the last one with the last request of the
    table, so that the workload gets no longer. The order of the tenant's calls stays as it is;
    deadlines move with the arrivals.

    Args:
        table: The requests.
        tenants: Who attacks, by name; without it, `heaviest(table)`.
        period_s: Seconds between bursts.

    Raises:
        ValueError: A tenant is unknown, or `period_s` is below 1 ms or not finite.
    """
    if not (np.isfinite(period_s) and period_s >= 1e-3):
        raise ValueError(f"period_s is {period_s}; give a finite number of seconds, 0.001 or more")
    mine = sent_by(table, _attackers(table, tenants))
    arrival = table.arrival_s
    end = np.minimum(np.ceil(arrival / period_s) * period_s, arrival[-1])
    # The product may fall short of the arrival by rounding.
    sent = np.where(mine, np.maximum(end, arrival), arrival)
    order = np.argsort(sent, kind="stable")
    columns: dict[str, Any] = {name: getattr(table, name)[order] for name in table.given}
    columns["arrival_s"] = sent[order]
    if "deadline_s" in table.given:
        columns["deadline_s"] = (sent + (table.deadline_s - arrival))[order]
    for name in ("request_id", "interaction"):
        columns[name] = getattr(table, name)[order]
    return RequestTable.from_mapping(columns, table.source)


def misdeclare_application(
    table: RequestTable, tenants: Sequence[str] | None = None, application: str | None = None
) -> RequestTable:
    """Let all calls of a tenant claim to be of the application whose calls usually cost most.

    A counter that divides by the typical cost of an application then charges them less. It pays
    where that cost is of history: one that is taken of the attacked table learns the lie.

    Args:
        table: The requests.
        tenants: Who attacks, by name; without it, `heaviest(table)`.
        application: What they claim; without it, the application with the largest
            `application_costs` of all that other tenants use.

    Raises:
        ValueError: A tenant or the application is unknown, or there is nothing else to claim:
            others use no application, or all requests are of one.
    """
    mine = sent_by(table, _attackers(table, tenants))
    names, codes = table.application.names, np.array(table.application.codes)
    if application is None:
        if mine.all() or len(np.unique(codes)) == 1:
            raise ValueError(
                "the requests of other tenants are of no application that could be claimed; name "
                "the application, or attack a table with several"
            )
        costs = application_costs(table, ~mine)
        application = max(costs, key=lambda name: costs[name])
    elif application not in names:
        raise ValueError(f"no request is of application {application!r}; {_choice(names)}")
    codes[mine] = names.index(application)
    return _changed(table, application=Labels(codes, names))


def inflate_calls(
    table: RequestTable, tenants: Sequence[str] | None = None, calls: int = 10
) -> RequestTable:
    """Let all calls of a tenant claim to be in the middle of long interactions.

    A call claims the place after its own (`call_index + 1`, so that none is a first call) in an
    interaction of `calls` calls, or of two more than it has where these are more: so another is
    always still to come. Numbers of interactions stay true, so that clients that wait still wait
    for the same calls (the simulator sends the first row of an interaction whatever its place).

    Args:
        table: The requests.
        tenants: Who attacks, by name; without it, `heaviest(table)`.
        calls: Calls that an interaction claims to have, 3 or more.

    Raises:
        ValueError: A tenant is unknown, or `calls` is less than 3.
    """
    _whole("calls", calls, 3)
    mine = sent_by(table, _attackers(table, tenants))
    index, size = table.call_index, table.calls_in_interaction
    return _changed(
        table,
        call_index=np.where(mine, index + 1, index),
        calls_in_interaction=np.where(mine, np.maximum(size + 2, calls), size),
    )


def pad_prompts(
    table: RequestTable,
    tenants: Sequence[str] | None = None,
    factor: float = 2.0,
    max_prompt_tokens: int | None = None,
) -> RequestTable:
    """Pad the prompts of a tenant: they take room and time, and spoil the costs of applications.

    Args:
        table: The requests.
        tenants: Who attacks, by name; without it, `heaviest(table)`.
        factor: Tokens of a padded prompt over those of the true one, rounded up; 1 or more.
        max_prompt_tokens: Pad no prompt beyond it; without it, beyond the longest of the table,
            so that no engine refuses what is padded. Longer prompts stay as they are.

    Raises:
        ValueError: A tenant is unknown, `factor` is less than 1 or not finite, or
            `max_prompt_tokens` is less than 1.
    """
    if not (np.isfinite(factor) and factor >= 1):
        raise ValueError(f"factor is {factor}; give a finite number, 1 or more")
    if max_prompt_tokens is not None:
        _whole("max_prompt_tokens", max_prompt_tokens, 1)
    mine = sent_by(table, _attackers(table, tenants))
    prompt = table.prompt_tokens
    most = min(int(prompt.max()) if max_prompt_tokens is None else max_prompt_tokens, MAX_TOKENS)
    padded = np.minimum(np.ceil(prompt * min(factor, MAX_TOKENS)), most).astype(np.int64)
    return _changed(table, prompt_tokens=np.where(mine, np.maximum(padded, prompt), prompt))


def heaviest(table: RequestTable, count: int = 1) -> tuple[str, ...]:
    """Names of the tenants whose requests cost most, input + 2 x output tokens, most first.

    Identities count as the tenant whose they are, so that after an attack of the heaviest tenants
    these are still found.

    Raises:
        ValueError: `count` is less than 1, or there are not so many tenants.
    """
    _whole("count", count, 1)
    tenant = honest_tenant(table)
    cost = np.bincount(tenant.codes, _cost(table), len(tenant.names))
    present = np.bincount(tenant.codes, minlength=len(tenant.names)) > 0
    if count > present.sum():
        raise ValueError(f"count is {count}, but there are {present.sum()} tenants")
    order = np.argsort(np.where(present, -cost, np.inf), kind="stable")
    return tuple(tenant.names[code] for code in order[:count])


def honest_tenant(table: RequestTable) -> Labels:
    """(n,) who really sends each request: identities are those of their tenant."""
    found: dict[str, int] = {}
    mapping = [found.setdefault(IDENTITY.sub("", name), len(found)) for name in table.tenant.names]
    return Labels(np.array(mapping, np.int32)[table.tenant.codes], tuple(found))


def sent_by(table: RequestTable, tenants: Sequence[str]) -> Bools:
    """(n,) whether each request is really of one of the tenants, under whatever identity.

    Raises:
        ValueError: No request is of one of them.
    """
    tenant = honest_tenant(table)
    wanted = (tenants,) if isinstance(tenants, str) else tuple(tenants)
    present = {tenant.names[code] for code in np.unique(tenant.codes)}
    if unknown := [name for name in wanted if name not in present]:
        raise ValueError(
            f"no request is of tenant {unknown[0]!r}; {_choice(sorted(present, key=_by_number))}"
        )
    known = np.isin(np.arange(len(tenant.names)), [tenant.names.index(name) for name in wanted])
    return np.asarray(known[tenant.codes], np.bool_)


def honest_rows(table: RequestTable, honest: RequestTable) -> Ints:
    """(n,) row of each request in the table before the attack, by `request_id`.

    Raises:
        ValueError: A request is not in that table.
    """
    order = np.argsort(honest.request_id, kind="stable")
    ids = honest.request_id[order]
    place = np.minimum(np.searchsorted(ids, table.request_id), len(ids) - 1)
    if (absent := ids[place] != table.request_id).any():
        raise ValueError(
            f"request {table.request_id[np.argmax(absent)]} is not in the honest table; give the "
            "one that was attacked, drawn with the same seed"
        )
    return np.asarray(order[place], np.int64)


def unmask(table: RequestTable, honest: RequestTable) -> RequestTable:
    """The requests as they were sent, with their true tenant, application and interaction.

    Times and tokens stay as they were sent, since that is what was served; those before the
    attack are in the rows `honest_rows(table, honest)` of the honest table. To score a run
    `result`: `Served.of(dataclasses.replace(result, table=unmask(result.table, honest)))`.

    Raises:
        ValueError: As `honest_rows`.
    """
    rows = honest_rows(table, honest)
    return table.replace(**{name: getattr(honest, name)[rows] for name in _CLAIMS})


def application_costs(table: RequestTable, rows: Bools | None = None) -> dict[str, float]:
    """Typical cost of the applications: mean prompt + 2 x mean output tokens of their calls.

    These are the weights of FairServe's artifact for a system prompt without tokens. Taken of
    the honest table, they are the history that an attacked one can be charged by.

    Args:
        table: The requests.
        rows: (n,) which of them count; without it, all.

    Returns:
        Cost by application, of those with a request that counts.
    """
    codes, cost = np.asarray(table.application.codes), _cost(table)
    if rows is not None:
        codes, cost = codes[rows], cost[rows]
    calls, sums = np.bincount(codes), np.bincount(codes, cost)
    return {
        table.application.names[code]: float(sums[code] / calls[code])
        for code in np.flatnonzero(calls)
    }


def _cost(table: RequestTable) -> npt.NDArray[np.float64]:
    return table.prompt_tokens + 2.0 * table.output_tokens


def _attackers(table: RequestTable, tenants: Sequence[str] | None) -> tuple[str, ...]:
    if tenants is None:
        return heaviest(table)
    return (tenants,) if isinstance(tenants, str) else tuple(dict.fromkeys(tenants))


def _changed(table: RequestTable, **columns: Any) -> RequestTable:
    """The table with some columns changed, and with the numbers that tell what the rows are."""
    return table.replace(request_id=table.request_id, interaction=table.interaction, **columns)


def _whole(name: str, value: int, least: int) -> None:
    if value < least or value != int(value):
        raise ValueError(f"{name} is {value}; give a whole number of {least} or more")


def _choice(names: Sequence[str]) -> str:
    return f"there are {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"


def _by_number(name: str) -> tuple[str, int]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0)
