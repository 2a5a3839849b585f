"""Solving the integer program, whatever happens, within a time limit."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp

from baselines.scaling.formulation import CORRECTED, Formulation, formulation
from baselines.scaling.greedy import best, heuristic
from baselines.scaling.moves import Counts, Moves, outcome
from baselines.scaling.plan import Plan, Status
from baselines.scaling.problem import ScalingProblem
from baselines.scaling.program import LEVELS, Program, build, held_at, narrowed, opened
from baselines.scaling.realise import realise

Floats = npt.NDArray[np.float64]
_OPTIMAL, _LIMIT, _INFEASIBLE = 0, 1, 2
_ROUNDING_S, _ROUNDING_GAP = 10.0, 1e-3


@dataclass(frozen=True, eq=False)
class _Answer:
    """What HiGHS says of one program."""

    status: int
    solution: Floats | None
    value: float
    bound: float
    gap: float


def solve(
    problem: ScalingProblem,
    *,
    time_limit_s: float = 30.0,
    gap: float = 5e-3,
    form: str | Formulation = CORRECTED,
) -> Plan:
    """The cheapest plan with the least broken and the least shortfall.

    First all rules and all demand are required. If no plan does that, the shortfall of single
    regions is made least, then that of all regions together before it, then what floors, ceilings
    and quotas lack before both; dollars come last. Each is a program of its own (lexicographic), so
    that no weight has to be large enough. The answer is always a plan that can be carried out.

    Args:
        problem: What is known.
        time_limit_s: Wall seconds for all programs together; HiGHS looks at the clock now and then.
        gap: Relative gap at which a program counts as solved; for shortfalls a tenth of it relative
            to the whole demand, by which they also give way to what comes after. 0 is exact.
        form: `corrected`, `as_published`, `as_released`, or a formulation of one's own.

    Returns:
        A plan. When time runs out it is the best known, or the heuristic's if that is better.

    Raises:
        ValueError: A limit makes no sense, or no formulation has that name.
    """
    if not time_limit_s > 0:
        raise ValueError(f"time_limit_s is {time_limit_s:g}: give seconds, more than 0")
    if not 0 <= gap < 1:
        raise ValueError(f"gap is {gap:g}: give a share from 0 to less than 1")
    form = formulation(form)
    start = time.perf_counter()
    program = build(problem, form)
    deadline = start + time_limit_s
    relaxed = _run(program, program.cost, deadline, 0.0, whole=False)
    # Of large problems the rounded relaxation can be better than what branching finds in time.
    reserve = min(0.2 * time_limit_s, 5.0 * (time.perf_counter() - start))
    answer, stopped = _lexicographic(program, relaxed, deadline - reserve, gap)
    status: Status = "time_limit" if stopped else "optimal"
    objective = bound = found_gap = math.nan
    if answer is None or answer.solution is None:
        moves = _by_heuristic(problem, program if form.moves else None, relaxed, deadline)
        wanted = _counts(problem, moves)
        status = "heuristic"
    else:
        moves, wanted = _moves(problem, form, program, answer.solution)
        objective, bound, found_gap = answer.value, answer.bound, answer.gap
        objective = objective * program.unit - program.constant
        bound = bound * program.unit - program.constant
        if stopped and form.moves:
            other = _by_heuristic(problem, program, relaxed, deadline)
            if best(problem, moves, other) is other:
                if outcome(problem, other).score[:3] != outcome(problem, moves).score[:3]:
                    bound = math.nan
                moves, wanted, status = other, _counts(problem, other), "heuristic"
    if form.costs == "dollars":
        objective = sum(outcome(problem, moves).dollars.values())
        found_gap = _gap(objective, bound) if stopped else found_gap
    return Plan(
        problem=problem,
        moves=moves,
        formulation=form.name,
        status=status,
        objective=objective,
        bound=bound,
        gap=found_gap,
        seconds=time.perf_counter() - start,
        wanted=wanted,
        note=stopped,
    )


def plan_greedily(problem: ScalingProblem, *, relaxed: bool = True) -> Plan:
    """A plan without the integer program, for problems too large for it.

    Args:
        problem: What is known.
        relaxed: Whether to try the rounded linear relaxation, too, which also gives a bound.

    Returns:
        The better of both: rules are kept where that is easily done, but demand may fall short
        although another plan would cover it.
    """
    start = time.perf_counter()
    bound = math.nan
    program = answer = None
    if relaxed:
        program = build(problem, CORRECTED)
        answer = _run(program, program.cost, math.inf, 0.0, whole=False)
        bound = answer.value * program.unit
    moves = _by_heuristic(problem, program, answer, start + _ROUNDING_S)
    *lacking, objective = outcome(problem, moves).score
    if any(lacking):
        bound = math.nan  # that of plans which lack nothing
    return Plan(
        problem=problem,
        moves=moves,
        formulation=CORRECTED.name,
        status="heuristic",
        objective=objective,
        bound=bound,
        gap=_gap(objective, bound),
        seconds=time.perf_counter() - start,
        wanted=_counts(problem, moves),
    )


def relaxed_bound(problem: ScalingProblem, form: str | Formulation = CORRECTED) -> float:
    """Least objective when instances may be divided, with all rules and demand required.

    Returns:
        A lower bound of every plan's objective that falls short of nothing; infinite if even
        divided instances cannot cover the demand within the rules.
    """
    program = build(problem, formulation(form))
    answer = _run(program, program.cost, math.inf, 0.0, whole=False)
    if answer.status == _INFEASIBLE:
        return math.inf
    return answer.value * program.unit - program.constant


def _lexicographic(
    program: Program, relaxed: _Answer, deadline: float, gap: float
) -> tuple[_Answer | None, str]:
    """The last answer there was, and why it is not the last that was wanted."""
    objectives = {name: program.objective(name) for name in LEVELS} | {"cost": program.cost}
    names = list(objectives)
    first = names.index("cost")
    current = program
    answer = relaxed
    if relaxed.status != _INFEASIBLE:
        answer = _run(program, program.cost, deadline, gap)
    while answer.status == _INFEASIBLE and first > 0:
        first -= 1
        current = opened(program, names[first])
        # That even divided instances do not do is known at once; that whole ones do not, late.
        answer = _run(current, np.zeros_like(program.cost), deadline, gap, whole=False)
        if answer.status != _INFEASIBLE:
            answer = _run(current, objectives[names[first]], _half(deadline), gap / 10)
    if answer.solution is None:
        return None, "no plan was found in time" if answer.status == _LIMIT else "HiGHS gave up"
    stopped = _why(answer)
    for level, name in zip(names[first:], names[first + 1 :], strict=False):
        # What the gap allows is given away here, or hardly any plan could be found beside this one.
        least = float(program.levels[level] @ answer.solution)
        current = held_at(current, level, least + gap / 10 * program.needs[level])
        last = name == "cost"
        until = deadline if last else _half(deadline)
        latest = _run(current, objectives[name], until, gap if last else gap / 10)
        if latest.solution is None:
            # The answer so far is a plan, too, but nobody has minimised its cost.
            value = float(program.cost @ answer.solution)
            return replace(answer, value=value, bound=math.nan, gap=math.nan), _why(latest)
        answer = latest
        stopped = stopped or _why(answer)
    return answer, stopped


def _half(deadline: float) -> float:
    """Half of the time that is left."""
    return (time.perf_counter() + deadline) / 2


def _why(answer: _Answer) -> str:
    return {_OPTIMAL: "", _LIMIT: "time ran out"}.get(answer.status, "HiGHS gave up")


def _run(
    program: Program, objective: Floats, deadline: float, gap: float, *, whole: bool = True
) -> _Answer:
    left = deadline - time.perf_counter()
    if left <= 0:
        return _Answer(_LIMIT, None, math.nan, math.nan, math.nan)
    options: dict[str, Any] = {"mip_rel_gap": gap}
    if left < math.inf:
        options["time_limit"] = left
    found = milp(
        objective,
        integrality=program.integer if whole else None,
        bounds=Bounds(program.lower, program.upper),
        constraints=LinearConstraint(program.rows, program.row_lower, program.row_upper),
        options=options,
    )
    if found.x is None:
        return _Answer(int(found.status), None, math.nan, math.nan, math.nan)
    value = float(found.fun)
    bound = value if found.mip_dual_bound is None else float(found.mip_dual_bound)
    return _Answer(int(found.status), np.asarray(found.x), value, bound, _gap(value, bound))


def _moves(
    problem: ScalingProblem, form: Formulation, program: Program, solution: Floats
) -> tuple[Moves, Counts]:
    wanted = np.rint(program.counts(solution, "serving")[0]).astype(np.int64)
    if not form.moves:
        return realise(problem, wanted), wanted
    moves = program.moves(solution).tidied()
    return moves, _counts(problem, moves)


def _by_heuristic(
    problem: ScalingProblem, program: Program | None, relaxed: _Answer | None, deadline: float
) -> Moves:
    """The best of the greedy plans and, if time allows, of those beside the relaxation."""
    if program is None or relaxed is None or relaxed.solution is None:
        return heuristic(problem)
    choice = heuristic(problem, program.counts(relaxed.solution, "serving")[0])
    near = narrowed(program, relaxed.solution)
    rounded = _run(near, near.cost, deadline, _ROUNDING_GAP)
    if rounded.solution is None:
        return choice
    return best(problem, choice, program.moves(rounded.solution).tidied())


def _counts(problem: ScalingProblem, moves: Moves) -> Counts:
    return np.asarray(problem.current + moves.started[0] - moves.stopped[0])


def _gap(value: float, bound: float) -> float:
    if math.isnan(bound) or value == bound:
        return bound - bound  # 0, or no number
    return max(0.0, value - bound) / abs(value) if value else math.inf
