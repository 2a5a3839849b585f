"""The figures of `servegym benchmark speed` as text."""

from __future__ import annotations

import statistics
from typing import Any

from scripts.common import table
from scripts.experiments.speed import exponent

_FLOORS = {4: 1_500_000, 64: 400_000}
"""Requests per second that the project promises, by instances (light load)."""


def speed_text(data: dict[str, Any]) -> str:
    """All that was measured."""
    host = data["machine"]
    load, after = host["load_average_1min"], data["load_average_at_end"]
    blocks = [
        f"{host['processor']}, {host['cpus']} CPUs; load average {load} before, {after} after: "
        "other work on the machine lowers every figure"
    ]
    if rows := data.get("replay"):
        blocks += [_replay(rows), _by_instances(rows)]
    if rows := data.get("growth"):
        blocks.append(_by_requests(rows))
    if rows := data.get("together"):
        blocks.append(_together(rows, data.get("replay", []) + data.get("growth", [])))
    blocks.append(_rest(data))
    return "\n\n".join(block for block in blocks if block)


def _against(value: float, floor: float, text: str) -> str:
    """A floor, with the word that it was missed."""
    return f"{text}: missed" if value < floor else text


def _mega(number: float) -> str:
    return f"{number / 1e6:.2f}"


def _replay(found: list[dict[str, Any]]) -> str:
    head = ["replay, one process", "M requests/s", "rounds", "per CPU s", "floor", "M tokens/s"]
    rows = [[*head, "M events/s", "ns a request", "peak MiB", "own"]]
    for r in found:
        floor = _FLOORS.get(r["instances"]) if r["load"] == "light" else None
        rows.append(
            [
                f"{r['instances']} instances, {r['load']}",
                _mega(r["median_per_s"]),
                f"{_mega(min(r['per_s']))} to {_mega(max(r['per_s']))}",
                _mega(r["median_per_cpu_s"]),
                _against(r["median_per_s"], floor, f"{floor / 1e6:.1f}") if floor else "",
                f"{r['output_tokens_per_s'] / 1e6:.0f}",
                _mega(r["events_per_s"]),
                f"{r['ns_per_request']:.0f}",
                f"{r['peak_memory_bytes'] / 2**20:.0f}",
                f"{r['own_memory_bytes'] / 2**20:.0f}",
            ]
        )
    return table(rows)


def _by_instances(found: list[dict[str, Any]]) -> str:
    """How the cost of a request grows with the fleet."""
    sizes = list(dict.fromkeys(r["instances"] for r in found))
    head = ["ns a request, over the smallest fleet", *(f"{n} inst." for n in sizes)]
    rows = [[*head, "grows as"]]
    for load in dict.fromkeys(r["load"] for r in found):
        costs = [r["ns_per_request"] for r in found if r["load"] == load]
        power = exponent(sizes, costs)
        rows.append([load, *(f"x {c / costs[0]:.2f}" for c in costs), f"instances^{power:.2f}"])
    return table(rows)


def _by_requests(found: list[dict[str, Any]]) -> str:
    """How the cost of a request grows with their number."""
    sizes = list(dict.fromkeys(r["requests"] for r in found))
    rows = [["ns a request", *(f"{n:,} requests" for n in sizes), "grows as", "bytes a request"]]
    for instances in dict.fromkeys(r["instances"] for r in found):
        mine = [r for r in found if r["instances"] == instances]
        costs = [r["ns_per_request"] for r in mine]
        power = exponent(sizes, costs) if len(sizes) > 1 else float("nan")
        more = mine[-1]["requests"] - mine[0]["requests"]
        memory = (mine[-1]["own_memory_bytes"] - mine[0]["own_memory_bytes"]) / max(more, 1)
        cells = [f"{cost:.0f}" for cost in costs]
        rows.append(
            [f"{instances} instances, light", *cells, f"requests^{power:.2f}", f"{memory:.0f}"]
        )
    return table(rows)


def _together(found: list[dict[str, Any]], alone: list[dict[str, Any]]) -> str:
    """Two processes at once beside one alone."""
    key = ("instances", "load", "requests")
    first = found[0]
    same = [r["median_per_s"] for r in alone if all(r[k] == first[k] for k in key)]
    each = [r["median_per_s"] for r in found]
    rows = [[f"{len(found)} processes at once", "M requests/s"]]
    rows += [[f"process {i + 1}", _mega(speed)] for i, speed in enumerate(each)]
    rows.append(["both", _mega(sum(each))])
    if same:
        one = statistics.median(same)
        rows.append(["one alone", _mega(one)])
        rows.append(["both / one alone", f"{sum(each) / one:.2f}"])
    return table(rows)


def _rest(data: dict[str, Any]) -> str:
    rows = [["measured", "median", "floor"]]
    if vector := data.get("vector"):
        title = f"vector Routing-v0, {vector['copies']} copies"
        compiled, step = vector["median_compiled_per_s"], vector["median_step_per_s"]
        rows.append([f"{title}, compiled call", f"{compiled:,.0f} decisions/s", ""])
        between = vector["median_between_per_s"]
        floor = _against(between, 1e6, "1,000,000")
        rows.append([f"{title}, step between resets", f"{between:,.0f} decisions/s", floor])
        floor = _against(step, 1e6, "1,000,000")
        rows.append([f"{title}, step and resets", f"{step:,.0f} decisions/s", floor])
        if env := data.get("env"):
            share = step / env["routing_steps_per_s"]
            rows.append(["the same over one Routing-v0", f"x {share:.1f}", ""])
    if env := data.get("env"):
        rows.append(["Routing-v0", f"{env['routing_steps_per_s']:,.0f} steps/s", ""])
        rows.append(["CartPole-v1", f"{env['cartpole_steps_per_s']:,.0f} steps/s", ""])
        ratio = env["ratio"]
        rows.append(["Routing-v0 / CartPole-v1", f"{ratio:.2f}", _against(ratio, 0.5, "0.50")])
    if scaling := data.get("scaling"):
        title = f"Scaling-v0 on {scaling['scenario']}"
        rows.append([title, f"{scaling['steps_per_s']:,.0f} steps/s", ""])
        rows.append(["simulated by it", f"{scaling['requests_per_s']:,.0f} requests/s", ""])
        many = f"{scaling['vector_steps_per_s']:,.0f} steps/s"
        rows.append([f"{title}, {scaling['copies']} copies, one core", many, ""])
    if week := data.get("week"):
        title = f"{week['requests']:,} requests, {week['instances']} places, {week['strategy']}"
        limit = "60 s" + (": missed" if week["whole_s"] > 60 else "")
        rows.append([f"{title}: drawn and run", f"{week['whole_s']:.1f} s", limit])
        rows.append(["run alone", f"{week['requests_per_s']:,.0f} requests/s", ""])
        peak = week["peak_memory_bytes"] / 2**30
        rows.append(["peak memory", f"{peak:.2f} GiB", "3 GiB" + (": missed" if peak > 3 else "")])
    if start := data.get("start"):
        starts = (("nothing compiled", "cold_s", 60), ("compiled before", "warm_s", 5))
        for title, key, most in starts:
            limit = f"{most} s at most" + (": missed" if start[key] > most else "")
            rows.append([f"first step, {title}", f"{start[key]:.1f} s", limit])
    return table(rows) if len(rows) > 1 else ""
