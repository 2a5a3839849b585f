"""The metrics of the throttling benchmark: their keys, titles, and the score of them."""

from __future__ import annotations

from scripts.experiments.metrics import Metric, share

SCORE = {
    "finished_share": 0.25,
    "goodput_share": 0.25,
    "jain": 0.25,
    "light_on_time": 0.25,
    "waste_share": -1.0,
    "benign_throttle_rate": -1.0,
}
"""What settings are chosen by: `score` is the sum of these metrics times their weights."""


def _waits(group: str, title: str) -> list[Metric]:
    return [
        Metric(
            f"{group}_ttft_p{q}_s",
            f"Time to first token, {title}, misses at the cut, {word} (s)",
            f"{group} p{q} s",
        )
        for q, word in ((50, "median"), (99, "p99"))
    ]


TENANCY: dict[str, Metric] = {
    metric.key: metric
    for metric in [
        Metric("score", "Score, of 100", "score", 100.0, 1, relative=False),
        # Useful work.
        Metric("interactions", "Interactions finished", "inter-actions", better=1),
        share("finished_share", "Interactions finished, of those begun", "finished", 1),
        Metric("multi_call_interactions", "Of several calls, finished", "multi-call", better=1),
        Metric("calls", "Calls finished", "calls", better=1),
        Metric(
            "agent_calls", "Of applications of several calls (FairServe)", "app calls", better=1
        ),
        Metric("attacker_calls", "Of attackers, finished", "att. calls"),
        Metric("other_calls", "Of all others, finished", "other calls", better=1),
        Metric("users", "Users with a finished call", "users", better=1),
        Metric(
            "goodput_tokens_per_s",
            "Tokens of interactions finished in time, per second",
            "good tok/s",
            better=1,
        ),
        share("goodput_share", "Tokens of interactions finished in time, of all", "good", 1),
        Metric("tokens_per_s", "Tokens of finished calls per second", "tok/s", better=1),
        Metric("prompt_tokens_per_s", "Prompt tokens per second", "prompt tok/s", better=1),
        Metric("output_tokens_per_s", "Output tokens per second", "output tok/s", better=1),
        # Waste and throttles.
        Metric("wasted_tokens", "Tokens of finished calls of killed interactions", "wasted"),
        Metric("wasted_prompt_tokens", "The same, prompts alone (FairServe)", "wasted prompt"),
        share("waste_share", "Wasted tokens, of those of finished calls", "waste"),
        Metric("throttled_calls", "Calls turned away", "thr. calls"),
        Metric("throttled_interactions", "Interactions that lost a call", "thr. inter."),
        Metric("throttled_users", "Users that lost a call", "thr. users"),
        Metric("broken_interactions", "Throttled interactions of which a call ran", "broken"),
        Metric("interrupted_users", "Users with such an interaction", "int. users"),
        share("benign_throttle_rate", "Calls of benign users turned away", "benign thr."),
        share("benign_throttle_share", "The same, of all calls", "benign of all"),
        # Fairness.
        Metric("jain", "Jain's index of normalised service", "Jain", 1.0, 1, relative=False),
        Metric("jain_unmet", "The same, of users with unmet demand", "Jain unmet", 1.0, 1, False),
        Metric("difference_mean", "Service difference, mean (cost/s)", "diff."),
        Metric("difference_max", "Service difference, max (cost/s)", "diff. max"),
        Metric("difference_published_mean", "Mean without rejected demand (VTC)", "VTC diff."),
        Metric("difference_published_max", "Max without rejected demand (VTC)", "VTC max"),
        Metric("accumulated_difference", "Accumulated difference (cost)", "acc. diff."),
        Metric("backlogged_gap", "Largest gap of backlogged users (2U)", "gap/2U"),
        share("unserved_users", "Users without normalised service", "S=0"),
        share("users_up_to_one", "Users of up to one typical call", "0<S<=1"),
        share("users_above_one", "Users of more than one typical call", "S>1", 1),
        # Waits.
        *_waits("light", "light users"),
        *_waits("middle", "middle users"),
        *_waits("heavy", "heavy users"),
        *_waits("all", "all users"),
        share("light_on_time", "Calls of light users with a first token in time", "light ok", 1),
        share("on_time", "Calls with a first token in time", "on time", 1),
        share("delayed_users", "Users of whose calls most are late or missed", "delayed"),
        Metric("served_ttft_mean_s", "Time to first token of finished calls (s)", "ttft s"),
        Metric("served_ttft_p50_s", "Time to first token of finished calls, median (s)", "p50 s"),
        Metric("served_ttft_p99_s", "Time to first token of finished calls, p99 (s)", "p99 s"),
        Metric("tpot_mean_s", "Time between tokens of finished calls (ms)", "tpot ms", 1e3),
        Metric("isolation_ratio", "Wait of light users with heavy ones over without", "isol."),
        # The run to its end, as the papers print it.
        Metric("run_s", "Time to the end of all work (s)", "run s"),
        Metric("run_tokens_per_s", "Tokens per second to the end", "run tok/s", better=1),
        Metric("run_prompt_tokens_per_s", "Prompt tokens, likewise", "run prompt/s", better=1),
        Metric("run_output_tokens_per_s", "Output tokens, likewise", "run out/s", better=1),
        Metric("run_ttft_mean_s", "Time to first token to the end (s)", "run ttft s"),
    ]
}
"""The metrics of the throttling benchmark by key; up to the cut unless said otherwise."""

COMPACT = (
    "interactions",
    "tokens_per_s",
    "waste_share",
    "throttled_calls",
    "benign_throttle_rate",
    "jain",
    "light_ttft_p50_s",
    "light_ttft_p99_s",
)
"""What a terminal shows beside the score."""
