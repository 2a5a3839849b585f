"""Which user an interaction belongs to: few heavy accounts, many users of a few applications."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .applications import Application

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Rng = np.random.Generator

_USERS_PER_CALL = 0.1358  # 1,358 users in 10,000 calls (arXiv:2411.15997, artifact)


@dataclass(frozen=True)
class Account:
    """A user who sends by machine.

    Attributes:
        calls: Calls of 10,000.
        applications: Names of the applications that it alone uses.
        one_interaction: Whether its calls are one interaction.
    """

    calls: int
    applications: tuple[str, ...]
    one_interaction: bool = False


def own(
    applications: list[Application],
    application: Ints,
    size: Ints,
    accounts: Sequence[Account],
    hub: int,
    users: int | None,
    zipf: float,
    scale: float,
    rng: Rng,
) -> tuple[Ints, tuple[str, ...]]:
    """Give every interaction to a user.

    Args:
        applications: The applications.
        application: (i,) application of each interaction, rising.
        size: (i,) calls of each interaction.
        accounts: The heavy users.
        hub: The application in which the accounts make the calls outside of their own.
        users: Users in all, or None for the trace's proportion.
        zipf: Exponent of the users' activity.
        scale: Calls over 10,000.
        rng: Source of randomness.

    Returns:
        (i,) user of each interaction, and the names of the users, the accounts first.

    Raises:
        ValueError: There are more users asked for than can have an interaction each.
    """
    owner = np.full(len(size), -1, np.int64)
    # The one long interaction first, so that no other account takes it.
    for number, account in sorted(
        enumerate(accounts), key=lambda pair: not pair[1].one_interaction
    ):
        _give_account(owner, number, account, applications, application, size, hub, scale, rng)
    pools = _pool_sizes(applications, application, owner < 0)
    ordinary = _ordinary(users, len(accounts), pools, int(size.sum()))
    members = _pools(pools, ordinary, zipf, rng)
    weight = _activity(ordinary, zipf)
    for i, pool in enumerate(members):
        mine = rng.permutation(np.flatnonzero((application == i) & (owner < 0)))
        if len(mine):
            chances = weight[pool] / weight[pool].sum()
            more = rng.choice(pool, len(mine) - len(pool), p=chances)
            owner[mine] = len(accounts) + np.concatenate([pool, more])
    names = [f"account-{i}" for i in range(len(accounts))]
    return owner, (*names, *(f"user-{i}" for i in range(ordinary)))


def _give_account(
    owner: Ints,
    number: int,
    account: Account,
    applications: list[Application],
    application: Ints,
    size: Ints,
    hub: int,
    scale: float,
    rng: Rng,
) -> None:
    quota = round(account.calls * scale)
    free = np.flatnonzero((application == hub) & (owner < 0))
    if account.one_interaction:
        if len(free) and quota > 0:
            owner[free[np.argmax(size[free])]] = number
        return
    own_names = [i for i, a in enumerate(applications) if a.name in account.applications]
    mine = np.isin(application, own_names)
    owner[mine] = number
    free = rng.permutation(free)
    short = quota - int(size[mine].sum())
    owner[free[np.cumsum(size[free]) <= short]] = number


def _pool_sizes(
    applications: list[Application], application: Ints, free: npt.NDArray[np.bool_]
) -> Ints:
    """Different users of each application: as in the trace, at most one an interaction."""
    published = np.array([a.users / a.interactions for a in applications])
    wanted = np.rint(published * np.bincount(application, minlength=len(applications)))
    most = np.bincount(application[free], minlength=len(applications))
    return np.minimum(np.maximum(wanted.astype(np.int64), 1), most)


def _ordinary(users: int | None, accounts: int, pools: Ints, calls: int) -> int:
    most = int(pools.sum())
    if users is None:
        return max(min(round(_USERS_PER_CALL * calls) - accounts, most), int(most > 0))
    if not accounts <= users <= most + accounts:
        raise ValueError(
            f"users is {users}; with these calls and applications give {accounts + (most > 0)} to "
            f"{most + accounts}"
        )
    return users - accounts


def _activity(users: int, zipf: float) -> Floats:
    return np.arange(1, users + 1, dtype=np.float64) ** -zipf


def _pools(pools: Ints, users: int, zipf: float, rng: Rng) -> list[Ints]:
    """Users of each application: every user is in one at least, the active ones in more."""
    weight = _activity(users, zipf)
    slots = rng.permutation(np.repeat(np.arange(len(pools)), pools))
    # The first slots hold each user once; the others are filled by activity.
    first = slots[:users]
    members: list[Ints] = []
    at_home = rng.permutation(users)[: len(first)]
    for i, wanted in enumerate(pools):
        pool = at_home[first == i]
        missing = min(int(wanted), users) - len(pool)
        if missing > 0:
            chances = weight.copy()
            chances[pool] = 0.0
            chances /= chances.sum()
            pool = np.concatenate([pool, rng.choice(users, missing, replace=False, p=chances)])
        members.append(pool)
    return members
