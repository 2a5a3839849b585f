"""Each rule on situations whose answer is worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.routing import router, routers
from baselines.routing.randomness import random_below
from envs.simulator import HOLD, Simulation
from envs.workloads import RequestTable
from tests.baselines.situation import Instance, Situation, engine

NEWCOMER = (100, 50)
# KV 300 of one request, against 120 of three.
LONG = Instance(decoding=[(200, 150, 100)])
SHORT = Instance(decoding=[(30, 20, 10)] * 3)
# One prompt of 200 tokens waits, against two of 10 tokens.
WAITS_LONG = Instance(waiting=[(200, 10)])
WAITS_SHORT = Instance(waiting=[(10, 10)] * 2)

# rule, parameters, instances, expected instance.
CASES = [
    ("jsq", {}, [SHORT, LONG], 1),
    ("jsq", {}, [Instance(waiting=[(5, 5)] * 2), LONG, Instance(prefilling=[(9, 9)])], 1),
    # 150 - 100 = 50 predicted to come against 3 x (20 - 10).
    ("jsq_tokens", {}, [LONG, SHORT], 1),
    # 200 + 10 against 2 x (10 + 10).
    ("jsq_tokens", {}, [WAITS_LONG, WAITS_SHORT], 1),
    # A prompt in prefill is work: 60 + 5 against 50.
    ("jsq_tokens", {}, [Instance(prefilling=[(60, 5)]), LONG], 1),
    # 4 x 1 against 3; with a weight of 2 it is 2 against 3.
    ("vllm_dp", {}, [WAITS_LONG, SHORT], 1),
    ("vllm_dp", {"waiting_weight": 2.0}, [WAITS_LONG, SHORT], 0),
    ("least_kv", {}, [LONG, SHORT], 1),
    ("least_kv", {}, [WAITS_LONG, SHORT], 1),
    # 300 of 1,000 tokens against 120 of 200.
    ("least_kv", {}, [Instance(SHORT.decoding, config=engine(200)), LONG], 1),
    # 20 x 0.32 ms = 6.4 ms against 0.15 x 0.3 / 0.7 = 64 ms.
    ("smg_least_load", {}, [LONG, WAITS_SHORT], 1),
    # 200 x 0.32 ms = 64.0 ms against 64.3 ms; at 2,000 tokens/s 100 ms against 64.3 ms.
    ("smg_least_load", {}, [LONG, WAITS_LONG], 1),
    ("smg_least_load", {"tokens_per_s": 2000.0}, [LONG, WAITS_LONG], 0),
    # Queue 2 x (0, 1/2, 1) + 2 x (1, 1, 0.7) = 2, 3, 3.4.
    ("llm_d", {}, [WAITS_SHORT, WAITS_LONG, LONG], 2),
    # With a KV weight of 6: 6, 7, 6.2.
    ("llm_d", {"kv_weight": 6.0}, [WAITS_SHORT, WAITS_LONG, LONG], 1),
    # Nothing waits: KV alone.
    ("llm_d", {}, [LONG, SHORT], 1),
    # Blocks ceil(100/16) = 7 + ceil(400/16) = 25 against ceil(300/16) = 19 + 19 = 38.
    ("dynamo", {}, [WAITS_LONG, LONG], 1),
    ("dynamo", {"prefill_weight": 0.0}, [LONG, WAITS_LONG], 1),
    # 103 and 108 tokens are both 7 blocks: a tie, which smaller blocks break.
    ("dynamo", {}, [Instance(waiting=[(8, 1)]), Instance(waiting=[(3, 1)])], 0),
    ("dynamo", {"block_tokens": 1.0}, [Instance(waiting=[(8, 1)]), Instance(waiting=[(3, 1)])], 1),
    # 100 x 3 against 300 x 1 (a tie), then 100 x 3 against 120 x 2.
    ("lmetric", {}, [SHORT, WAITS_LONG], 0),
    ("lmetric", {}, [SHORT, WAITS_SHORT], 1),
    # 700 / 1 against 880 / 3; an idle instance beats both.
    ("llumnix", {}, [SHORT, LONG], 1),
    ("llumnix", {}, [LONG, SHORT, Instance()], 2),
    # Without the waiting 200 tokens the first would have 1,000 steps: 800 against 980 / 1.
    ("llumnix", {}, [WAITS_LONG, Instance(decoding=[(10, 20, 10)])], 1),
    ("max_capacity", {}, [LONG, SHORT], 1),
    # 1,000 - 300 free against 200 - 120 free: the small one is less used but has less.
    ("max_capacity", {}, [Instance(config=engine(200)), LONG], 1),
    # No capacity for the prompt of 100 anywhere, then no slot where there is capacity.
    ("max_capacity", {}, [Instance(SHORT.decoding, config=engine(200))], HOLD),
    ("max_capacity", {}, [Instance(SHORT.decoding, config=engine(slots=3))], HOLD),
    # The same bucket: fewer sequences in service.
    ("min_min", {}, [SHORT, LONG], 1),
    ("min_min", {}, [Instance(SHORT.decoding, config=engine(200))], HOLD),
    # One instance: the answer is short of 147 tokens, then long.
    ("dedicated", {}, [LONG], 0),
    ("dedicated", {}, [LONG, Instance()], 0),
    ("dedicated", {"heavy_tokens": 49.0}, [LONG, SHORT], 1),
    ("dedicated", {"heavy_tokens": 49.0}, [Instance(), LONG, SHORT], 1),
    # The light half cannot hold the prompt.
    ("dedicated", {}, [Instance(config=engine(90)), SHORT], 1),
    # 120 + 3 x 150 tokens against 300 + 1 x 150 (both impacts below epsilon).
    ("argmax_r_mixing", {}, [SHORT, LONG], 1),
    # With epsilon 0.04 the impact .032 + .0099 counts on LONG, .032 + .00396 does not on SHORT.
    ("argmax_r_mixing", {"epsilon": 0.04}, [LONG, SHORT], 1),
    # In prompt tokens, less what is the same for both: prefill stops 3 others and the decodes
    # share 3 x 10 tokens, 300 + 2 x 4.69 x 30 = 581, against 100 + 2 x 4.69 x 50 = 569.
    ("marginal_cost", {}, [SHORT, LONG], 1),
    ("marginal_cost", {"sequence_tokens": 20.0}, [LONG, SHORT], 1),
    # 951 + 100 + 50 + 2 > 1,000: overflow costs more than three neighbours.
    ("marginal_cost", {}, [Instance(decoding=[(950, 3, 1)]), SHORT], 1),
    ("marginal_cost", {"overflow_weight": 0.0}, [Instance(decoding=[(950, 3, 1)]), SHORT], 0),
    # Reserved: 300 + 100 + .15 x 100 against 120 + 100 + .15 x 80.
    ("pull", {}, [LONG, SHORT], 1),
    # Only where nothing waits, even if it is fuller.
    ("pull", {}, [WAITS_SHORT, LONG], 1),
    ("pull", {}, [WAITS_SHORT, WAITS_LONG], HOLD),
    # 300 + 100 + theta x (50 + 50) of 450 tokens: fits at 0.5, not at 0.6.
    ("pull", {"theta": 0.5}, [Instance(LONG.decoding, config=engine(450))], 0),
    ("pull", {"theta": 0.6}, [Instance(LONG.decoding, config=engine(450))], HOLD),
    ("pull", {"theta": 0.5}, [Instance(LONG.decoding, config=engine(450, watermark=0.01))], HOLD),
    ("pull", {}, [Instance(SHORT.decoding, config=engine(slots=3))], HOLD),
    # An empty instance takes what it can hold, whatever the reservation.
    ("pull", {"theta": 1.0}, [Instance(config=engine(120))], 0),
    ("pull_sjf", {}, [LONG, SHORT], 1),
]


@pytest.mark.parametrize(("rule", "parameters", "instances", "expected"), CASES)
def test_choice(
    rule: str, parameters: dict[str, float], instances: list[Instance], expected: int
) -> None:
    assert Situation([NEWCOMER], instances).decide(router(rule, **parameters)) == expected


SINGLE = [name for name in routers() if name not in ("power_of_two", "dedicated")]


@pytest.mark.parametrize("rule", SINGLE)
def test_ties_go_to_the_lowest_index(rule: str) -> None:
    assert Situation([NEWCOMER], [Instance()] * 3).decide(router(rule)) == 0
    assert Situation([NEWCOMER], [SHORT] * 3).decide(router(rule)) == 0


@pytest.mark.parametrize("rule", routers())
def test_instances_too_small_for_the_prompt_are_skipped(rule: str) -> None:
    small = Instance(config=engine(100, watermark=0.01))
    assert Situation([NEWCOMER], [small, small, LONG, small]).decide(router(rule)) == 2
    assert Situation([NEWCOMER], [small, small]).decide(router(rule)) == HOLD


def test_round_robin_cycles() -> None:
    rule, situation = router("round_robin"), Situation([NEWCOMER], [SHORT, LONG, Instance()])
    memory = rule.memory(3, seed=0)
    assert [situation.decide(rule, memory) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_decode_balancer_balances_all_that_was_sent() -> None:
    rule = router("decode_balancer")
    memory = rule.memory(2, seed=0)
    # Sums after each: (50, 0), (50, 20), (50, 90), (150, 90), (150, 95).
    chosen = [
        Situation([(10, tokens)], [LONG, Instance()]).decide(rule, memory)
        for tokens in (50, 20, 70, 100, 5)
    ]
    assert chosen == [0, 1, 1, 0, 1]


def test_min_min_takes_the_shortest_bucket_then_the_shortest_prompt() -> None:
    rule = router("min_min")
    # Place 3 has the shortest prompt of the lightest bucket; instance 1 serves fewer.
    queue = [(10, 2048), (10, 256), (90, 255), (80, 1)]
    assert Situation(queue, [SHORT, LONG]).decide(rule) == 3 * 2 + 1
    # The short one does not fit any more.
    full = [Instance(SHORT.decoding, config=engine(195)), Instance(LONG.decoding)]
    assert Situation([(900, 1), (70, 500)], full).decide(rule) == 1 * 2 + 1


def test_dedicated_counts_inside_a_half() -> None:
    light, heavy = (100, 147), (100, 148)
    fleet = [SHORT, LONG, SHORT, LONG]
    assert Situation([light], fleet).decide(router("dedicated")) == 1
    assert Situation([heavy], fleet).decide(router("dedicated")) == 3


def test_power_of_two_takes_the_emptier_of_two() -> None:
    rule = router("power_of_two")
    situation, memory = Situation([NEWCOMER], [SHORT, LONG]), rule.memory(2, seed=1)
    assert {situation.decide(rule, memory) for _ in range(20)} == {1}
    # The fullest of four is never chosen, the others all are.
    situation = Situation([NEWCOMER], [LONG, SHORT, Instance(), LONG])
    memory = rule.memory(4, seed=1)
    assert {situation.decide(rule, memory) for _ in range(200)} == {0, 2, 3}
    assert Situation([NEWCOMER], [SHORT]).decide(rule) == 0


def test_power_of_two_is_repeatable_and_seeded() -> None:
    rule, situation = router("power_of_two"), Situation([NEWCOMER], [Instance()] * 8)

    def draws(seed: int) -> list[int]:
        memory = rule.memory(8, seed)
        return [situation.decide(rule, memory) for _ in range(30)]

    assert draws(3) == draws(3) != draws(4)
    assert np.bincount(draws(3) + draws(4) + draws(5), minlength=8).min() > 0


def test_random_below_is_splitmix64() -> None:
    memory = np.zeros(64, np.int64)
    # The first outputs of the generator for seed 0.
    for output in (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F):
        assert random_below(memory, 1_000_003) == (output >> 1) % 1_000_003


def test_tokens_generated_since_the_last_event_count() -> None:
    # Alone for 12 s the first request has generated some 700 tokens, the second some 120.
    table = RequestTable.from_columns(
        arrival_s=np.array([0.0, 10.0, 12.0]),
        prompt_tokens=np.array([10, 300, 5]),
        output_tokens=np.array([2000, 2000, 5]),
        predicted_output_tokens=np.array([2000, 2000, 5]),
    )
    simulation = Simulation(table, [engine(3000)] * 2)
    for instance in (0, 1):
        assert simulation.advance()
        simulation.apply(instance)
    assert simulation.advance()
    arrays = simulation.state.arrays
    views = [arrays[name] for name in ("instances", "requests", "running", "candidates")]
    now = int(simulation.state.head["now_ps"][0])
    chosen = {}
    for name in ("jsq", "least_kv", "jsq_tokens", "llumnix"):
        rule = router(name)
        chosen[name] = rule.compiled(now, *views, np.zeros(0), rule.memory(2, 0))
    # The first has more KV but less left to generate.
    assert chosen == {"jsq": 0, "least_kv": 1, "jsq_tokens": 0, "llumnix": 1}
