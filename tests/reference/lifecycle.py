"""The slow, obvious life cycle of instances (docs/simulator.md, "Life cycle").

It moves places on top of the reference simulator, one at a time, and counts everything anew.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tests.reference.fleet import Fleet
from tests.reference.places import FOREVER, Account, Place

STARTING = ("provisioning", "loading", "reclaiming")
HOLDING = (*STARTING, "ready", "draining", "donated")
DELAYS = ("provision", "load_local", "load_remote", "reclaim", "repair")
PS_PER_S = 10**12

Deployment = tuple[int, int]  # role and region, by number


def _ps(seconds: float) -> float:
    return FOREVER if math.isinf(seconds) else round(seconds * PS_PER_S)


class LivingFleet(Fleet):
    """A fleet of places; `live` says what is ordered when, with `run_to` and the orders below."""

    def __init__(self, *args: Any, plan: Any, normals: Any, gpus: Any, live: Any) -> None:
        """Take what `Fleet` takes, a plan like `LifecyclePlan`, and the numbers of its delays."""
        super().__init__(*args)
        self.plan, self.normals, self.live = plan, normals, live
        self.now = 0
        self.touched = False  # whether the router is to decide anew
        self.changes = []
        names = [region.name for region in plan.regions]
        self.places = []
        self.near: set[tuple[int, str]] = set()  # regions and models whose weights lie there
        for i, engine in enumerate(self.engines):
            state = "ready" if plan.ready[i] else "donated" if plan.donated[i] else "off"
            role = None if state == "off" else int(plan.role[i])
            where = names.index(engine.region)
            place = Place(i, int(plan.kind[i]), where, int(gpus[i]), state, role)
            self.places.append(place)
            self.instances[i].up = state == "ready"
            if role is not None:
                self.near.add((where, plan.roles[role].model))
        self.accounts: dict[Deployment, Account] = {
            (k, r): Account() for k in range(len(plan.roles)) for r in range(len(names))
        }
        order = sorted(plan.evictions, key=lambda one: (one.time_s, one.place))
        self.evictions = [(_ps(one.time_s), one.place, _ps(one.notice_s)) for one in order]
        self.next_pull = _ps(plan.pull_s) or FOREVER
        self.next_sample = _ps(plan.sample_s) or FOREVER
        self.samples: list[list[tuple[int, ...]]] = []

    def run(self) -> None:
        """Have it live."""
        self.live(self)

    def run_to(self, until: float) -> bool:
        """Run up to a time in ps; whether anything is in the system or to arrive."""
        if self.touched:
            self._react()
        while True:
            alarm = self._alarm(until)
            self.changes = [] if alarm == FOREVER else [(int(alarm), "alarm", 0, 0)]
            instant = self._next_instant(self.now)
            if instant is None:
                return False
            self.integral += len(self._in_system()) * (instant - self.now)
            self._account(instant - self.now)
            self.now = self.counters.now = instant
            if self.happens:
                self._happen(self.now)
            else:
                self._change_places()
                self._tick()
                if until == FOREVER and self._is_over():
                    return False
                if self.now >= until:
                    return True
                if self.touched:
                    self._react()
            self._check_conservation()

    def _alarm(self, until: float) -> float:
        """When something other than the requests is next to be looked at."""
        times = [until, self.next_pull, self.next_sample, *(p.until for p in self.places)]
        times += [time for time, _, _ in self.evictions[:1]]
        if any(p.state == "draining" and self.is_empty(p) for p in self.places):
            times.append(self.now)
        return min(times)

    def _is_over(self) -> bool:
        """Whether, with no end in time, nothing but the clock goes on; releases backlogs first."""
        changes = any(p.until < FOREVER for p in self.places) or self.evictions
        if self.touched or changes or self._instants(self.now):
            return False
        if not self.backlogs.requests:
            return True
        self._release(self.backlogs.release_all(), self.now)
        self.touched = True
        return False

    def _react(self) -> None:
        self.touched = False
        self._begin_anew(self.now)

    # What happens by itself.

    def _change_places(self) -> None:
        """Places in their order, then evictions."""
        for place in self.places:
            if place.state == "draining" and self.is_empty(place):
                self._drained(place)
            self._go_on(place)
        while self.evictions and self.evictions[0][0] <= self.now:
            _, i, notice = self.evictions.pop(0)
            self.evict(i, notice)

    def _tick(self) -> None:
        """The clock's signal to backlogs, and a sample."""
        if self.now >= self.next_pull:
            self.next_pull += _ps(self.plan.pull_s)
            if released := self.backlogs.pull(self.instances, self.now):
                self._release(released, self.now)
                self.touched = True
        if self.now >= self.next_sample:
            self.next_sample += _ps(self.plan.sample_s)
            self.samples.append([self.counts(*d) for d in self.accounts])

    def _go_on(self, place: Place) -> None:
        """Leave states whose time is over, as long as any is."""
        while place.until <= self.now:
            place.until = FOREVER
            if place.state == "provisioning":
                assert place.role is not None
                delay = self._load(place, place.role)
                self._put(place, "loading", place.role, delay)
            elif place.state in STARTING:
                assert place.role is not None
                self.near.add((place.region, self.model(place.role)))
                self._put(place, "ready", place.role)
                self.touched = True
            elif place.state == "draining":
                lost = self.instances[place.index].fail()
                self.queue += lost
                self._sort_queue()
                self.touched = True
                self._drained(place)
            elif place.state == "failed":
                self._put(place, "off", None)

    def _drained(self, place: Place) -> None:
        """It is done with its requests, and goes where it was to go."""
        role, goal = place.role, place.goal
        assert role is not None
        if goal == "loading":
            assert place.goal_role is not None
            self._start(place, place.goal_role, "redeployed")
        elif goal == "failed":
            self.accounts[role, place.region].lost += 1
            self._put(place, "failed", None, self._delay(place, "repair"))
        else:
            self._put(place, goal, role if goal == "donated" else None)

    def _put(self, place: Place, state: str, role: int | None, delay: float = FOREVER) -> None:
        place.state, place.role, place.until = state, role, self.now + delay
        instance = self.instances[place.index]
        instance.up = state in ("ready", "draining")
        instance.draining = state == "draining"

    # Delays.

    def _delay(self, place: Place, name: str) -> float:
        """Lognormal about its median, cut at e^3 times it."""
        z = self.normals[place.index][place.draws % len(self.normals[place.index])]
        place.draws += 1
        median = _ps(getattr(self.plan.delays, f"{name}_s"))
        return int(median * math.exp(min(self.plan.delays.sigma * z, 3.0)))

    def _load(self, place: Place, role: int) -> float:
        near = self.model(role) == "" or (place.region, self.model(role)) in self.near
        return self._delay(place, "load_local" if near else "load_remote")

    # Questions.

    def model(self, role: int) -> str:
        """Model of a role."""
        return str(self.plan.roles[role].model)

    def is_empty(self, place: Place) -> bool:
        """Whether nothing is at its instance, or under way to it."""
        return not self.instances[place.index].requests

    def pattern(self, role: int, kind: int) -> int | None:
        """The first instance as given that has a role on a kind of GPU."""
        each = zip(self.plan.role, self.plan.kind, strict=True)
        return next((j for j, pair in enumerate(each) if pair == (role, kind)), None)

    def here(self, role: int, region: int, *states: str) -> list[Place]:
        """Places of a deployment in some states."""
        return [
            p for p in self.places if (p.role, p.region) == (role, region) and p.state in states
        ]

    def counts(self, role: int, region: int) -> tuple[int, int, int, int]:
        """Ready, starting, draining and donated."""
        coming = [p for p in self.places if p.state == "draining" and p.goal == "loading"]
        coming = [p for p in coming if (p.goal_role, p.region) == (role, region)]
        return (
            len(self.here(role, region, "ready")),
            len(self.here(role, region, *STARTING)) + len(coming),
            len(self.here(role, region, "draining")),
            len(self.here(role, region, "donated")),
        )

    def alive(self, role: int, region: int) -> int:
        """Ready and starting."""
        return sum(self.counts(role, region)[:2])

    def gpus_held(self, region: int) -> int:
        """GPUs held."""
        return sum(p.gpus for p in self.places if p.region == region and p.state in HOLDING)

    def _has_room(self, place: Place) -> bool:
        return self.gpus_held(place.region) + place.gpus <= self.plan.regions[place.region].quota

    # Orders.

    def scale_out(self, role: int, region: int, count: int, acquire: bool) -> int:
        """Start instances."""
        done = 0
        while done < count and self.alive(role, region) < self.plan.ceiling[role, region]:
            end = "off" if acquire else "donated"
            drains = [p for p in self.here(role, region, "draining") if p.goal == end]
            if drains:
                self._put(drains[0], "ready", role)
                self.touched = True
            elif not self._start_one(role, region, acquire):
                break
            done += 1
        return done

    def _start_one(self, role: int, region: int, acquire: bool) -> bool:
        state = "off" if acquire else "donated"
        places = [p for p in self.places if p.region == region and p.state == state]
        places = [p for p in places if self.pattern(role, p.kind) is not None]
        if acquire:
            places = sorted(filter(self._has_room, places), key=lambda p: p.kind)
            source = "acquired"
        else:
            places.sort(key=lambda p: p.role is None or self.model(p.role) != self.model(role))
        if not places:
            return False
        if not acquire:
            has = places[0].role
            same = has is not None and self.model(has) == self.model(role)
            source = "reclaimed" if same else "converted"
        self._start(places[0], role, source)
        self._go_on(places[0])
        return True

    def _start(self, place: Place, role: int, source: str) -> None:
        state = {"acquired": "provisioning", "reclaimed": "reclaiming"}.get(source, "loading")
        if source == "acquired":
            delay = self._delay(place, "provision")
        elif source == "reclaimed":
            delay = self._delay(place, "reclaim")
        elif source == "converted":
            delay = self._delay(place, "reclaim") + self._load(place, role)
        else:
            delay = self._load(place, role)
        self._put(place, state, role, delay)
        place.source = source
        pattern = self.pattern(role, place.kind)
        assert pattern is not None
        own = self.engines[place.index].region
        self.instances[place.index].become(dataclasses.replace(self.engines[pattern], region=own))
        starts = self.accounts[role, place.region].starts
        starts[source] = starts.get(source, 0) + 1

    def scale_in(self, role: int, region: int, count: int, donate: bool) -> int:
        """Stop instances."""
        done, goal = 0, "donated" if donate else "off"
        while done < count and self.alive(role, region) > self.plan.floor[role, region]:
            if starting := self.here(role, region, *STARTING):
                place = starting[-1]
                keeps = place.state == "reclaiming" and goal == "donated"
                end = "off" if place.state == "provisioning" else goal
                self._put(place, end, role if keeps else None)
            elif ready := self.here(role, region, "ready"):
                self._drain(self._least(ready), goal, None, _ps(self.plan.drain_limit_s))
            else:
                break
            done += 1
        self.accounts[role, region].stopped += done
        return done

    def _least(self, places: list[Place]) -> Place:
        """The one with the fewest requests; of several the last."""
        return min(reversed(places), key=lambda p: len(self.instances[p.index].requests))

    def _drain(self, place: Place, goal: str, goal_role: int | None, limit: float) -> None:
        place.goal, place.goal_role = goal, goal_role
        self._put(place, "draining", place.role, limit)
        self.touched = True
        if self.is_empty(place):
            self._drained(place)
        self._go_on(place)

    def redeploy(self, role: int, new_role: int, region: int, count: int) -> int:
        """Have instances serve another role."""
        done = 0
        while role != new_role and done < count:
            ready = self.here(role, region, "ready")
            ready = [p for p in ready if self.pattern(new_role, p.kind) is not None]
            full = self.alive(new_role, region) >= self.plan.ceiling[new_role, region]
            if not ready or full or self.alive(role, region) <= self.plan.floor[role, region]:
                break
            limit = _ps(self.plan.drain_limit_s)
            self._drain(self._least(ready), "loading", new_role, limit)
            done += 1
        self.accounts[role, region].stopped += done
        return done

    def give_back(self, region: int, count: int) -> int:
        """Give donated VMs back, the last first."""
        donated = [p for p in self.places if p.region == region and p.state == "donated"]
        chosen = donated[::-1][:count]
        for place in chosen:
            self._put(place, "off", None)
        return len(chosen)

    def donate_new(self, region: int, count: int) -> int:
        """Acquire VMs to donate them."""
        done = 0
        for place in self.places:
            here = place.region == region and place.state == "off"
            if done < count and here and self._has_room(place):
                self._put(place, "donated", None)
                done += 1
        return done

    def evict(self, i: int, notice: float) -> None:
        """Take the VM of a place away."""
        place = self.places[i]
        if place.state == "ready":
            self._drain(place, "failed", None, notice)
        elif place.state == "draining":
            place.goal, place.goal_role = "failed", None
            place.until = min(place.until, self.now + notice)
        elif place.state in HOLDING:
            if place.role is not None:
                self.accounts[place.role, place.region].lost += 1
            self._put(place, "failed", None, self._delay(place, "repair"))
        self._go_on(place)

    # Money.

    def _account(self, dt: int) -> None:
        for place in self.places:
            if place.state in HOLDING:
                self._charge(place, dt)

    def _charge(self, place: Place, dt: int) -> None:
        """Put the time of a place to its deployment; without weights to the first role's."""
        own, rules = self.accounts[place.role or 0, place.region], self.plan.regions[place.region]
        hours = dt / PS_PER_S / 3600 * place.gpus
        state = "starting" if place.state in STARTING else place.state
        own.add(state, dt)
        if state == "starting":
            own.add(place.source, dt)
        unpaid = state == "draining" and not self.plan.drain_billed
        if unpaid and place.goal == "donated":
            own.add("donated", dt)
        if state == "donated" or (unpaid and place.goal == "donated"):
            own.donated_dollars += hours * rules.donated_price[place.kind]
            own.income += hours * rules.spot_price[place.kind]
        elif not unpaid:
            own.gpu_ps += dt * place.gpus
            own.dollars += hours * rules.price[place.kind]
