"""A multi-tenant workload of LLM applications, drawn from FairServe's published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .applications import APPLICATIONS, Application, draw_lengths, sizes_with_mean
from .labels import Labels
from .ownership import Account, own
from .table import RequestTable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Rng = np.random.Generator

TRACE_CALLS = 10_000
TRACE_RATE = 10_000 / 72

ACCOUNTS = (
    Account(2092, ("21", "8", "2", "10")),
    Account(600, ("11",)),
    Account(288, (), one_interaction=True),
    Account(130, ()),
)
"""The four heaviest users, in calls of 10,000 (arXiv:2411.15997, aggregates of the artifact).

Calls are published, and that the first is in five applications, of which five have one user each;
which of these belong to whom is assumed. Calls outside the own applications are in the largest
application that has interactions.
"""

MOST_PROMPT_TOKENS, MOST_OUTPUT_TOKENS = 144_418, 2_500  # maxima of the trace
CALL_GAP_S = 2.0  # assumed mean time between the calls of an interaction: not published
# Counts a second are published as 139 on average, 103 to 256; assumed is that the burst comes at
# each full minute.
RATE_LOG_SIGMA, MINUTE_BURST = 0.08, 1.8


@dataclass(frozen=True)
class _Calls:
    """Calls before they are sorted; all (n,)."""

    application: Ints
    owner: Ints
    interaction: Ints
    index: Ints
    size: Ints


def copilot_calls(
    calls: int = TRACE_CALLS,
    seed: int = 0,
    *,
    duration_s: int | None = None,
    users: int | None = None,
    zipf: float = 0.2,
    service_accounts: int = len(ACCOUNTS),
    mix: Mapping[str, float] | None = None,
    held_out: Sequence[str] = (),
    length_divisor: int = 1,
    max_request_tokens: int | None = None,
) -> RequestTable:
    """Calls of thousands of users to 23 LLM applications, as in the FairServe paper's trace.

    Drawn from published figures (arXiv:2411.15997 and aggregates of its review artifact; no row
    of it is used): applications with their own lengths, users and interactions of several calls,
    a few users who send by machine. Arrivals are whole seconds and open loop: the calls of an
    interaction come in order, whether or not the one before has finished. Prompts and answers are
    long (means of 5,800 and 105 tokens) at 139 calls a second; the published runs replayed them
    with `length_divisor=8` and `max_request_tokens=2000`.

    Users other than the accounts get interactions in proportion to `rank ** -zipf`, but at least
    one each. `tenant`, `application`, `interaction`, `call_index` and `calls_in_interaction` are
    set; tenants are named "account-0" .. and "user-0" .., applications "app-17" and so on.

    Args:
        calls: Number of calls before any is dropped.
        seed: Seed of everything that is drawn.
        duration_s: Whole seconds over which they arrive; by default at the trace's rate.
        users: Number of users with the accounts; by default in the trace's proportion (0.1358 a
            call), or fewer where the applications have fewer.
        zipf: Exponent of the activity of the users; 0 makes them alike.
        service_accounts: How many of `ACCOUNTS` there are; the applications of one that is absent
            are absent as well.
        mix: Factors on the calls of applications, by name; others keep 1.
        held_out: Applications that send nothing; the others send more instead.
        length_divisor: Prompt and output tokens are divided by it, rounded up.
        max_request_tokens: Drop calls with so many tokens (prompt and output) or more; the calls
            that are left of an interaction are numbered anew.

    Raises:
        ValueError: An argument is out of range, or an application is unknown.
    """
    seconds = max(1, round(calls / TRACE_RATE)) if duration_s is None else duration_s
    _check(calls, seconds, zipf, service_accounts, length_divisor)
    rng = np.random.default_rng(seed)
    accounts = ACCOUNTS[:service_accounts]
    applications, counts = _shares(calls, mix or {}, held_out, accounts)
    drawn, names = _who(applications, counts, accounts, users, zipf, calls / TRACE_CALLS, rng)
    second = _when(drawn, seconds, rng)
    prompt, output = _lengths(applications, drawn.application, length_divisor, rng)
    kept = np.ones(calls, bool)
    if max_request_tokens is not None:
        kept = prompt + output < max_request_tokens
        if not kept.any():
            raise ValueError(f"no call has fewer than {max_request_tokens} tokens; allow more")
    # Calls of an interaction that fall into one second stay in order; interactions are mixed.
    mixed = rng.permutation(calls)[drawn.interaction]
    order = np.lexsort((drawn.index, mixed, second))
    order = order[kept[order]]
    index, size = _numbered(drawn.interaction[order])
    return RequestTable.from_columns(
        arrival_s=second[order].astype(np.float64),
        prompt_tokens=prompt[order],
        output_tokens=output[order],
        tenant=Labels(drawn.owner[order].astype(np.int32), names),
        application=Labels(
            drawn.application[order].astype(np.int32),
            tuple(_name(application) for application in applications),
        ),
        interaction=drawn.interaction[order],
        call_index=index,
        calls_in_interaction=size,
        source=f"FairServe's published figures, {calls} calls over {seconds} s, seed {seed}",
    )


def copilot_replay(seed: int = 0) -> RequestTable:
    """The calls as FairServe's published runs replayed them: lengths by 8, none of 2,000 or more.

    About 9,300 calls over 72 s that offer 67,000 prompt tokens a second, 5.5 times what one A100
    with a 7B model serves (arXiv:2411.15997, review artifact).
    """
    return copilot_calls(seed=seed, length_divisor=8, max_request_tokens=2000)


def _check(calls: int, seconds: int, zipf: float, accounts: int, divisor: int) -> None:
    for name, value in {"calls": calls, "duration_s": seconds, "length_divisor": divisor}.items():
        if value < 1 or value != int(value):
            raise ValueError(f"{name} is {value}; give a whole number of 1 or more")
    if not (np.isfinite(zipf) and zipf >= 0):
        raise ValueError(f"zipf is {zipf}; give a finite number, 0 or more")
    if not 0 <= accounts <= len(ACCOUNTS):
        raise ValueError(f"service_accounts is {accounts}; give 0 to {len(ACCOUNTS)}")


def _name(application: Application) -> str:
    return f"app-{application.name}"


def _shares(
    calls: int, mix: Mapping[str, float], held_out: Sequence[str], accounts: Sequence[Account]
) -> tuple[list[Application], Ints]:
    """The applications that send, and their calls: whole numbers that sum to `calls`."""
    known = {_name(application) for application in APPLICATIONS}
    for name in [*mix, *held_out]:
        if name not in known:
            raise ValueError(f"application {name!r} is unknown; choose of {sorted(known)}")
    absent = {name for account in ACCOUNTS[len(accounts) :] for name in account.applications}
    present = [
        application
        for application in APPLICATIONS
        if application.name not in absent and _name(application) not in held_out
    ]
    weights = np.array([a.calls * mix.get(_name(a), 1.0) for a in present], np.float64)
    if not (len(weights) and np.isfinite(weights).all() and (weights >= 0).all() and weights.sum()):
        raise ValueError("no application is left that sends calls; check mix and held_out")
    exact = calls * weights / weights.sum()
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")[: calls - counts.sum()]
    counts[largest] += 1
    return present, counts


def _who(
    applications: list[Application],
    counts: Ints,
    accounts: Sequence[Account],
    users: int | None,
    zipf: float,
    scale: float,
    rng: Rng,
) -> tuple[_Calls, tuple[str, ...]]:
    """Split the calls of each application into interactions, and give these to users."""
    sized = [a.interactions < a.calls for a in applications]
    hub = int(np.argmax(np.where(sized, counts, 0))) if any(sized) else int(np.argmax(counts))
    long = [round(account.calls * scale) for account in accounts if account.one_interaction]
    groups: list[Ints] = []
    for i, (each, count) in enumerate(zip(applications, counts.tolist(), strict=True)):
        first = long if i == hub and 0 < sum(long) <= count else []
        groups.append(np.concatenate([first, _sizes(each, count - sum(first), rng)]))
        groups[-1] = groups[-1].astype(np.int64)
    application = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    size = np.concatenate(groups)
    owner, names = own(applications, application, size, accounts, hub, users, zipf, scale, rng)
    of = np.repeat(np.arange(len(size)), size)
    index = np.arange(len(of)) - np.repeat(np.cumsum(size) - size, size)
    return _Calls(application[of], owner[of], of, index, size[of]), names


def _sizes(application: Application, calls: int, rng: Rng) -> Ints:
    """Sizes of interactions that make `calls` calls in all."""
    if application.interactions == application.calls or calls <= 1:
        return np.ones(calls, np.int64)
    mean = application.calls / application.interactions
    if application.name == "17":  # without the one interaction that is a user of its own
        mean = (application.calls - 288) / (application.interactions - 1)
    sizes, shares = sizes_with_mean(mean)
    drawn = rng.choice(sizes, calls, p=shares)
    stop = int(np.searchsorted(np.cumsum(drawn), calls)) + 1
    drawn = drawn[:stop]
    drawn[-1] -= drawn.sum() - calls
    return drawn


def _when(drawn: _Calls, seconds: int, rng: Rng) -> Ints:
    """The second of each call: in order within an interaction, at the trace's uneven rate."""
    rate = rng.lognormal(0.0, RATE_LOG_SIGMA, seconds)
    rate[::60] *= MINUTE_BURST
    edges = np.concatenate([[0.0], np.cumsum(rate) / rate.sum()])
    span = np.minimum(1.0, (drawn.size - 1) * CALL_GAP_S / seconds)
    # On a circle folded onto the window, so that no part of the window is favoured.
    start = 2.0 * rng.random(int(drawn.interaction[-1]) + 1)[drawn.interaction]
    share = (start + span * rng.random(len(start))) % 2.0
    share = np.minimum(share, 2.0 - share)
    share = share[np.lexsort((share, drawn.interaction))]
    return np.clip(np.searchsorted(edges, share, side="right") - 1, 0, seconds - 1)


def _lengths(
    applications: list[Application], which: Ints, divisor: int, rng: Rng
) -> tuple[Ints, Ints]:
    prompt = draw_lengths([a.prompt for a in applications], which, rng.standard_normal(len(which)))
    output = draw_lengths([a.output for a in applications], which, rng.standard_normal(len(which)))
    whole = (
        np.minimum(np.ceil(tokens), most).astype(np.int64)
        for tokens, most in ((prompt, MOST_PROMPT_TOKENS), (output, MOST_OUTPUT_TOKENS))
    )
    prompt_tokens, output_tokens = (-(-tokens // divisor) for tokens in whole)
    return prompt_tokens, output_tokens


def _numbered(interaction: Ints) -> tuple[Ints, Ints]:
    """Place of each row in its interaction, in the order of the rows, and the rows it has."""
    order = np.argsort(interaction, kind="stable")
    _, first, count = np.unique(interaction[order], return_index=True, return_counts=True)
    index, size = np.empty_like(interaction), np.empty_like(interaction)
    index[order] = np.arange(len(order)) - np.repeat(first, count)
    size[order] = np.repeat(count, count)
    return index, size
