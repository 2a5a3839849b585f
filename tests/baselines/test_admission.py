"""Verdicts of the admission policies, held against answers worked out by hand."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from baselines.admission import gate, gates
from baselines.routing import router
from baselines.scheduling import scheduler
from envs.hardware import preset
from envs.simulator import EngineConfig, Gate, Retry, simulate
from envs.simulator.gate import DROP, LET_IN, TURN_AWAY, WAIT
from envs.simulator.parameters import Range
from envs.workloads import RequestTable
from tests.baselines.bench import parameters
from tests.simulator.cases import random_case
from tests.simulator.differential import differences
from tests.simulator.gates import Given

SECOND = 10**12
MINUTE = 60 * SECOND


class Door:
    """One tenant and application before an admission policy."""

    def __init__(self, policy: Gate, weight: float = 1.0) -> None:
        """Take the policy, and the weight of the tenant."""
        self.policy, self.row = policy, parameters(*policy.parameters)
        self.row.fits, self.row.kv, self.row.saturation = 1, 0.0, 0.0
        self.tenant = self.account(weight)
        self.application = self.account()
        self.interaction = SimpleNamespace(in_system=0, running=0, served=0, tokens=0)

    @staticmethod
    def account(weight: float = 1.0) -> SimpleNamespace:
        """A tenant or an application that has done nothing yet."""
        empty = dict.fromkeys(("recent", "recent_tokens", "queued", "running", "open"), 0)
        return SimpleNamespace(weight=weight, g0=0, g1=0, g2=0, g3=0, **empty)

    def call(self, prompt: int = 1, predicted: int = 1, index: int = 0, tier: int = 0) -> Any:
        """A call: the row of its request and its traits."""
        request = SimpleNamespace(
            arrival_ps=0, admit_ps=-1, prompt=prompt, predicted=predicted, generated=0, tier=tier
        )
        return request, SimpleNamespace(call_index=index, reserved=0)

    def ask(self, function: str, at_s: float, call: Any = None) -> int:
        """What it says of a call at a time."""
        request, traits = self.call() if call is None else call
        judge = getattr(self.policy, function)
        rows = (request, traits, self.tenant, self.application, self.interaction, self.row)
        return int(judge(round(at_s * SECOND), *rows))

    def arrive(self, at_s: float, call: Any = None) -> int:
        """What it says of an arrival."""
        return self.ask("arrive", at_s, call)

    def look(self, at_s: float = 0.0, call: Any = None) -> int:
        """What it says of a head."""
        return self.ask("look", at_s, call)

    def finish(self, at_s: float, call: Any, generated: int, admitted: bool = True) -> None:
        """Tell it of the end of a call."""
        call[0].generated = generated
        call[0].admit_ps = 0 if admitted else -1
        self.ask("finish", at_s, call)

    @property
    def tokens(self) -> float:
        """Level of the bucket."""
        return self.tenant.g0 / 1000


def test_a_bucket_fills_up_to_its_burst() -> None:
    """600 a minute are 10 a second; 20 s of it are 200."""
    door = Door(gate("token_bucket", tokens_per_minute=600, burst_s=20))
    assert door.arrive(0.0, door.call(100, 50)) == LET_IN
    assert door.tokens == 50
    assert door.arrive(1.0, door.call(30, 31)) == TURN_AWAY
    assert door.tokens == 60
    assert door.arrive(1.0, door.call(30, 30)) == LET_IN
    assert door.tokens == 0
    assert door.arrive(100.0, door.call(200, 1)) == LET_IN  # full, though it is larger
    assert door.tokens == -1
    assert door.arrive(20.0 + 100.0, door.call(200, 1)) == TURN_AWAY
    assert door.tokens == 199


def test_weights_multiply_rate_and_burst() -> None:
    door = Door(gate("token_bucket", tokens_per_minute=600, burst_s=20), weight=2.0)
    assert door.arrive(0.0, door.call(400, 0)) == LET_IN
    assert door.arrive(3.0, door.call(60, 0)) == LET_IN
    assert door.tokens == 0


def test_a_bucket_settles_what_it_reserved() -> None:
    door = Door(gate("token_bucket", tokens_per_minute=600, burst_s=20))
    less, more, none = door.call(50, 50), door.call(20, 10), door.call(40, 10)
    assert [door.arrive(0.0, call) for call in (less, more, none)] == [LET_IN] * 3
    assert door.tokens == 20
    door.finish(0.0, less, generated=20)
    assert door.tokens == 50
    door.finish(0.0, more, generated=40)
    assert door.tokens == 20
    door.finish(0.0, none, generated=0, admitted=False)  # turned away before it was served
    assert door.tokens == 70


def test_estimates_count_in_fixed_minutes_until_the_limit_is_reached() -> None:
    """3,000 a minute, each call its prompt and 256; calls are no limit here."""
    door = Door(gate("token_bucket_reserved", tokens_per_minute=3000, calls_per_thousand=1e3))
    call = door.call(1000, 7)
    # The third exceeds the limit, which was not reached before it.
    assert [door.arrive(59.0, call) for _ in range(4)] == [LET_IN] * 3 + [TURN_AWAY]
    assert door.tenant.g0 == 3 * 1256
    assert door.policy.finish is None  # what was not used is never given back
    assert door.arrive(59.99, call) == TURN_AWAY
    assert [door.arrive(60.0, call) for _ in range(4)] == [LET_IN] * 3 + [TURN_AWAY]


def test_calls_are_limited_in_windows_of_10_s() -> None:
    """6 a minute per 1,000 tokens a minute: 12 at 2,000, or 2 in any tenth of a minute."""
    policy = gate("token_bucket_reserved", tokens_per_minute=2000, answer_tokens=0)
    door, heavy = Door(policy), Door(policy, weight=1.5)
    assert [door.arrive(t) for t in (0.0, 9.0, 9.9)] == [LET_IN, LET_IN, TURN_AWAY]
    assert [door.arrive(t) for t in (10.0, 10.0, 19.9)] == [LET_IN, LET_IN, TURN_AWAY]
    assert [heavy.arrive(0.0) for _ in range(4)] == [LET_IN] * 3 + [TURN_AWAY]
    spared = Door(policy.with_parameters(spare_interactions=1))
    later = spared.call(index=1)
    assert [spared.arrive(0.0, later) for _ in range(9)] == [LET_IN] * 9
    assert spared.arrive(0.0) == TURN_AWAY


def test_after_the_fact_the_call_that_exceeds_the_budget_succeeds() -> None:
    door = Door(gate("token_bucket_after", tokens_per_minute=600, burst_s=20))
    calls = [door.call(150, 100) for _ in range(4)]
    assert [door.arrive(0.0, call) for call in calls[:3]] == [LET_IN] * 3
    assert door.tokens == 200
    for call in calls[:2]:
        door.finish(1.0, call, generated=30)
    assert door.tokens == 200 - 2 * 180
    assert door.arrive(17.0, calls[3]) == LET_IN  # -160 + 170
    assert door.tokens == 10
    door.finish(17.0, calls[2], generated=0)
    assert door.arrive(17.0, door.call()) == TURN_AWAY


def test_later_calls_can_be_spared() -> None:
    for spares, verdict in ((0, TURN_AWAY), (1, LET_IN)):
        door = Door(gate("token_bucket", tokens_per_minute=60, spare_interactions=spares))
        assert door.arrive(0.0, door.call(59, 1)) == LET_IN
        assert door.arrive(0.0, door.call(10, 1)) == TURN_AWAY
        assert door.arrive(0.0, door.call(10, 1, index=1)) == verdict


def test_a_cap_in_minutes_of_the_clock() -> None:
    door = Door(gate("dynamic_limits", tokens_per_minute=1000, threshold=0.8, share=0.5))
    assert door.arrive(0.0) == LET_IN
    door.finish(59.0, door.call(700), generated=99)
    assert door.arrive(59.0) == LET_IN  # 799 of 1,000: shares do not bind yet
    door.finish(59.0, door.call(1), generated=0)
    assert door.arrive(59.0) == TURN_AWAY  # 800, and 800 >= 500 are its own
    other, door.tenant = door.tenant, door.account()
    assert door.arrive(59.0) == LET_IN
    door.finish(59.0, door.call(200), generated=0)
    assert door.arrive(59.0) == TURN_AWAY  # 1,000, though its share is not used
    assert door.arrive(60.0) == LET_IN
    door.tenant = other
    assert door.arrive(60.0) == LET_IN
    assert (door.row.m0, door.row.m1) == (0.0, 1.0)


def test_shares_follow_the_weights() -> None:
    for weight, verdict in ((1.0, TURN_AWAY), (2.0, LET_IN)):
        options = {"tokens_per_minute": 1000, "threshold": 0.1, "share": 0.2}
        door = Door(gate("dynamic_limits", **options), weight)
        door.finish(0.0, door.call(200), generated=100)
        assert door.arrive(0.0) == verdict


def test_shares_beyond_the_whole_are_normalised_over_who_calls() -> None:
    """Three tenants of 0.5 each get a third of the cap, of 1,000."""
    door = Door(gate("dynamic_limits", tokens_per_minute=1000, threshold=0.3, share=0.5))
    tenants = [door.account() for _ in range(3)]
    for tenant in tenants:
        door.tenant = tenant
        assert [door.arrive(0.0), door.arrive(0.0)] == [LET_IN] * 2
    for tenant, used, verdict in zip(tenants, (333, 334, 0), (LET_IN, TURN_AWAY, LET_IN)):  # noqa: B905
        door.tenant = tenant
        door.finish(1.0, door.call(used), generated=0)
        assert door.arrive(1.0) == verdict
    # In the next minute those who do not call have no share of it.
    door.tenant = tenants[0]
    assert door.arrive(60.0) == LET_IN
    door.finish(61.0, door.call(499), generated=0)
    assert door.arrive(61.0) == LET_IN
    door.finish(61.0, door.call(1), generated=0)
    assert door.arrive(61.0) == TURN_AWAY


def test_spared_calls_are_let_in_below_the_cap_alone() -> None:
    options = {"tokens_per_minute": 1000, "threshold": 0.1, "share": 0.1}
    door = Door(gate("dynamic_limits", **options, spare_interactions=1))
    door.finish(0.0, door.call(999), generated=0)
    assert door.arrive(0.0, door.call(index=1)) == LET_IN
    assert door.arrive(0.0, door.call(index=0)) == TURN_AWAY
    door.finish(0.0, door.call(1), generated=0)
    assert door.arrive(0.0, door.call(index=1)) == TURN_AWAY


@pytest.mark.parametrize(
    ("fits", "index", "tenant", "application", "verdict"),
    [
        (1, 0, 99, 99, LET_IN),  # no limit is enforced while there is room
        (0, 0, 4, 9, WAIT),
        (0, 0, 5, 0, TURN_AWAY),  # `count >= limit`
        (0, 0, 4, 10, TURN_AWAY),  # the application, where the tenant is under its limit
        (0, 1, 99, 99, WAIT),  # later calls are never throttled
    ],
)
def test_oit_as_coded(fits: int, index: int, tenant: int, application: int, verdict: int) -> None:
    door = Door(gate("oit", tenant_limit=5, application_limit=10))
    door.row.fits = fits
    door.tenant.recent, door.application.recent = tenant, application
    assert door.look(0.0, door.call(index=index)) == verdict
    assert door.policy.arrive is None and door.policy.kills_interactions


@pytest.mark.parametrize(
    ("kv", "index", "tenant", "application", "verdict"),
    [
        (0.9, 0, 99, 99, LET_IN),
        (0.91, 0, 5, 10, LET_IN),  # its own call is counted, so the limit itself is allowed
        (0.91, 0, 6, 0, WAIT),
        (0.91, 0, 0, 11, WAIT),
        (0.91, 1, 99, 99, LET_IN),
    ],
)
def test_oit_as_published(
    kv: float, index: int, tenant: int, application: int, verdict: int
) -> None:
    door = Door(gate("oit_published", tenant_limit=5, application_limit=10))
    door.row.kv = kv
    door.tenant.recent, door.application.recent = tenant, application
    assert door.arrive(0.0, door.call(index=index)) == verdict
    assert door.policy.senses


@pytest.mark.parametrize("fits", [0, 1])
def test_calls_that_are_too_late(fits: int) -> None:
    door = Door(gate("late"))
    door.row.fits = fits
    assert door.look(5.5) == (LET_IN if fits else WAIT)
    assert door.look(5.6) == DROP
    preempted = door.call()
    preempted[0].admit_ps = 1
    assert door.look(99.0, preempted) == (LET_IN if fits else WAIT)


@pytest.mark.parametrize(
    ("level", "in_band"),  # looks of which one is let through; 1 where all are, 0 where none
    [
        (0.50, (1, 1, 1)),
        (0.58, (1, 1, 1)),  # .58 / .42 is 1.4
        (0.66, (1, 1, 2)),
        (0.70, (1, 2, 2)),
        (0.80, (1, 4, 4)),
        (0.96, (1, 24, 24)),
        (1.00, (1, 0, 0)),
        (1.01, (0, 0, 0)),
    ],
)
def test_the_soft_ceiling(level: float, in_band: tuple[int, ...]) -> None:
    door = Door(gate("soft_ceiling"))
    for band, (recent, every) in enumerate(zip((10, 11, 31), in_band, strict=True)):
        for tier in (0, band):  # by the calls in the minute, then by tier
            door.row.saturation, door.row.m1, door.row.m2 = level, 0.0, 0.0
            door.tenant.recent = recent if tier == 0 else 0
            assert door.arrive(0.0) == LET_IN
            verdicts = [door.look(0.0, door.call(tier=tier)) for _ in range(48)]
            expected = [LET_IN if every and k % every == every - 1 else WAIT for k in range(48)]
            assert verdicts == expected, (band, tier)


def test_looks_at_calls_that_do_not_fit_are_no_attempts() -> None:
    door = Door(gate("soft_ceiling"))
    door.row.saturation, door.row.fits = 0.8, 0
    assert [door.look(0.0, door.call(tier=1)) for _ in range(9)] == [WAIT] * 9
    assert door.row.m1 == 0.0


@pytest.mark.parametrize(("band", "ceiling"), [(0, 1.0), (1, 0.8), (2, 0.6)])
def test_priority_hold_back(band: int, ceiling: float) -> None:
    door = Door(gate("hold_back"))
    for tier, recent in ((band, 0), (0, (10, 11, 31)[band])):
        door.tenant.recent = recent
        assert door.arrive(0.0) == LET_IN
        for level, verdict in ((ceiling - 0.01, LET_IN), (ceiling + 0.01, WAIT)):
            door.row.saturation = level
            assert door.look(0.0, door.call(tier=tier)) == verdict
    door.row.fits, door.row.saturation = 0, 0.0
    assert door.look() == WAIT


def test_turns_of_a_minute() -> None:
    door = Door(gate("rpm", requests_per_minute=2), weight=1.5)
    assert [door.arrive(t) for t in (0.0, 1.0, 2.0, 59.9)] == [LET_IN] * 3 + [TURN_AWAY]
    assert door.arrive(60.0) == LET_IN
    spared = Door(gate("rpm", requests_per_minute=1, spare_interactions=1))
    later = spared.call(index=1)
    assert [spared.arrive(0.0), spared.arrive(0.0, later)] == [LET_IN, LET_IN]
    assert spared.arrive(0.0) == TURN_AWAY


@pytest.mark.filterwarnings("ignore::envs.hardware.cost_model.OutsideFitWarning")
@pytest.mark.parametrize(
    ("policy", "order", "blocking"),
    [
        (gate("hold_back", calls_of_second_band=3, lowest=0.2), "las_bands", "las"),
        (gate("fair_queues", seats=1, borrow_below=0.0), "vtc_predict_seats", "vtc_predict"),
    ],
)
def test_nobody_waits_behind_who_is_held_back(policy: Gate, order: str, blocking: str) -> None:
    """A tenant of many calls is next but held back; one that was served more need not wait."""
    count = 40
    table = RequestTable.from_columns(
        arrival_s=[0.0] + [5.0] * count + [6.0],
        prompt_tokens=[1000] + [100] * (count + 1),
        output_tokens=[10] + [400] * (count + 1),
        predicted_output_tokens=[10] + [400] * (count + 1),
        tenant=["few"] + ["many"] * count + ["few"],
    )
    waits = {}
    for queue in (order, blocking):
        engine = EngineConfig(
            preset("a10g-llama2-7b-slora"), 10_000, max_num_seqs=64, queue=scheduler(queue)
        )
        policy = dataclasses.replace(policy, queue_limit=1e12)
        result = simulate(table, [engine], router("jsq"), gate=policy)
        row = result.requests[-1]
        waits[queue] = (row["first_token_ps"] - row["arrival_ps"]) / 1e12
    assert waits[order] < 1.0 < waits[blocking]


def test_queues_of_a_limited_length() -> None:
    door = Door(gate("fair_queues", queue_length=3))
    door.tenant.queued = 2
    assert door.arrive(0.0) == LET_IN
    door.tenant.queued = 3
    assert door.arrive(0.0) == TURN_AWAY


@pytest.mark.parametrize(
    ("running", "kv", "fits", "verdict"),
    [(1, 0.9, 1, LET_IN), (2, 0.5, 1, WAIT), (2, 0.49, 1, LET_IN), (0, 0.0, 0, WAIT)],
)
def test_seats_are_lent_while_there_is_room(
    running: int, kv: float, fits: int, verdict: int
) -> None:
    door = Door(gate("fair_queues", seats=2))
    door.tenant.running, door.row.kv, door.row.fits = running, kv, fits
    assert door.look() == verdict


SMALL = {
    "rpm": {"requests_per_minute": 2, "spare_interactions": 1},
    "token_bucket": {"tokens_per_minute": 2e10, "burst_s": 1e-7},
    "token_bucket_reserved": {
        **{"tokens_per_minute": 2e10, "answer_tokens": 4, "calls_per_thousand": 60},
        **{"token_window_s": 1e-7, "call_window_s": 3e-8},
    },
    "token_bucket_after": {"tokens_per_minute": 2e10, "burst_s": 1e-7},
    "dynamic_limits": {"tokens_per_minute": 90, "threshold": 0.3, "share": 0.2},
    "oit": {"tenant_limit": 4, "application_limit": 7},
    "oit_published": {"tenant_limit": 2, "application_limit": 4, "kv_share": 0.3},
    "late": {"ttft_s": 3e-7, "margin_s": 1e-7},
    "bands": {"calls_of_second_band": 2, "calls_of_third_band": 4},
    "soft_ceiling": {"calls_of_second_band": 2, "calls_of_third_band": 4},
    "hold_back": {"calls_of_second_band": 2, "calls_of_third_band": 4},
    "fair_queues": {"queue_length": 2, "seats": 2, "borrow_below": 0.3},
}
"""Parameters at which the small random cases meet every verdict; they take microseconds."""


@pytest.mark.parametrize("name", gates())
def test_compiled_policies_equal_plain_ones(name: str) -> None:
    """The reference calls them as Python, the kernel as machine code."""
    policy = dataclasses.replace(gate(name, **SMALL[name]), delay_s=1e-6)
    judges = Given(policy, Retry(times=2, backoff_s=1e-6, patience_s=1e-4))
    for seed in range(60, 74):
        changed = dataclasses.replace(random_case(seed), judges=judges)
        assert not differences(changed), changed.describe()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="'open' is unknown; choose of"):
        gate("open")
    with pytest.raises(ValueError, match="tenant_limit"):
        gate("oit", limit=3)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "token_bucket",
            {"tokens_per_minute": -5},
            "tokens_per_minute is -5; give a finite",
        ),
        ("token_bucket", {"burst_s": 0}, "token_bucket: burst_s is 0; .*more than 0"),
        ("token_bucket", {"reconcile": 0.5}, "reconcile is 0.5; give 0 or 1"),
        ("fair_queues", {"seats": 0}, "fair_queues: seats is 0; give a whole number, 1 or more"),
        ("fair_queues", {"seats": 1.5}, "seats is 1.5"),
        ("dynamic_limits", {"share": 2}, "share is 2; .*more than 0 and at most 1"),
        ("oit", {"tenant_limit": float("nan")}, "tenant_limit is nan"),
        ("late", {"ttft_s": float("inf")}, "ttft_s is inf"),
    ],
)
def test_senseless_parameters_are_refused(
    name: str, values: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gate(name, **values)


def test_a_policy_of_ones_own_is_checked_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="mine: limit is 0; give a finite number, 1 or more"):
        Gate("mine", parameters=(0.0,), parameter_names=("limit",), ranges=(Range(1.0),))
    with pytest.raises(ValueError, match="mine: p0 is nan; give a finite number"):
        Gate("mine", parameters=(float("nan"),))
