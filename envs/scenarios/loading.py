"""From a preset's name or a file to a checked scenario or fleet.

Two keys save repetition and are resolved before anything is checked. `extends` names a preset or
file to start from. `points` names variations of a file: point `rate8` of the preset file
`router.yaml` is the scenario `router-rate8`, and that of a user's file is `my.yaml#rate8`. What is
written is merged over what it starts from: mappings key by key, everything else replaces. A
`fleet` that is named, a `workload` of another `kind`, or a `gate` of another name, replaces the
whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from envs.scenarios.errors import ScenarioError, did_you_mean, from_validation, shown
from envs.scenarios.fleet import Fleet
from envs.scenarios.schema import Scenario
from envs.scenarios.strict import Strict
from envs.scenarios.yaml_file import read_yaml

Model = TypeVar("Model", Scenario, Fleet)
Data = dict[str, Any]

_HERE = Path(__file__).parent
_FOLDERS: dict[type[Strict], Path] = {Scenario: _HERE / "presets", Fleet: _HERE / "fleets"}


def load_scenario(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Scenario:
    """Read a scenario.

    Args:
        name_or_path: Name of a preset (see `scenario_names`), or a YAML file, followed by
            `#point` if the file has points.
        overrides: Values to merge over the file's, such as `{"workload": {"requests": 100}}`.

    Raises:
        ScenarioError: There is no such preset, file or point, or its content is refused; the
            message names the file, the key and the mend.
    """
    return _load(Scenario, str(name_or_path), overrides or {})


def load_fleet(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Fleet:
    """Read a fleet; arguments and errors as `load_scenario`, names in `fleet_names`."""
    return _load(Fleet, str(name_or_path), overrides or {})


def parse_scenario(data: object, source: str = "scenario") -> Scenario:
    """Check a scenario that was built in memory.

    Args:
        data: What the YAML file would hold.
        source: Stands in error messages, and is the scenario's name if it has none.

    Raises:
        ScenarioError: As `load_scenario`.
    """
    if not isinstance(data, dict):
        raise ScenarioError(source, f"must be a mapping of keys to values, not {shown(data)}")
    plain = _plain(Scenario, data, Path(), source, ())
    return _check(Scenario, {"name": source} | plain, source)


def scenario_names() -> list[str]:
    """Names of the preset scenarios, sorted."""
    return sorted(_presets(Scenario))


def fleet_names() -> list[str]:
    """Names of the preset fleets, sorted."""
    return sorted(_presets(Fleet))


def _load(kind: type[Model], reference: str, overrides: Mapping[str, Any]) -> Model:
    data, path = _file(kind, reference, Path(), ())
    data = _merge_over(kind, data, overrides, Path(), "overrides", ())
    found = _check(kind, data, str(path))
    # Here, since a fleet that is built later no longer knows its file.
    if isinstance(found, Scenario):
        _check_names(found.fleet, str(path), ("fleet",))
    else:
        _check_names(found, str(path), ())
    return found


def _check_names(fleet: Fleet, source: str, key: tuple[str, ...]) -> None:
    """See to it that the catalogue has what the groups name."""
    for name, group in fleet.groups.items():
        try:
            group.check()
        except (KeyError, ValueError) as error:
            problem = str(error.args[0]) if error.args else str(error)
            raise ScenarioError(source, problem, (*key, "groups", name)) from None


def _check(kind: type[Model], data: Data, source: str) -> Model:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise from_validation(error, source, data) from None


def _file(
    kind: type[Strict], reference: str, folder: Path, trail: tuple[str, ...]
) -> tuple[Data, Path]:
    """Content of a preset or file with nothing left to resolve, and the file."""
    path, point = _find(kind, reference, folder)
    place = f"{path}#{point}" if point else str(path)
    if place in trail:
        raise ScenarioError(place, "extends itself")
    data = read_yaml(path)
    points = data.pop("points", None)
    plain = _plain(kind, data, path.parent, str(path), (*trail, place))
    # A name is never inherited, so that no two scenarios of a report are called the same.
    plain["name"] = data.get("name", path.stem)
    if points is not None or point:
        changes = _point(points, point, path)
        trail = (*trail, place)
        plain = _merge_over(kind, plain, changes, path.parent, str(path), trail)
        plain["name"] = changes.get("name", f"{path.stem}-{point}")
    return plain, path


def _find(kind: type[Strict], reference: str, folder: Path) -> tuple[Path, str]:
    """File and point (empty for none) that a name or path means."""
    presets = _presets(kind)
    if reference in presets:
        return presets[reference]
    noun = kind.__name__.lower()
    file, _, point = reference.partition("#")
    path = folder / file
    if os.path.isfile(path):  # unlike the method of paths, it takes a name of any length
        return path, point
    if path.suffix in {".yaml", ".yml"} or "/" in file:
        raise ScenarioError(str(path), f"there is no such {noun} file")
    raise ScenarioError(reference, f"no {noun} has this name; {did_you_mean(reference, presets)}")


def _point(points: object, point: str, path: Path) -> Data:
    if points is None:
        raise ScenarioError(str(path), f"the file has no points, so leave out #{point}")
    if not isinstance(points, dict) or not all(isinstance(v, dict) for v in points.values()):
        raise ScenarioError(str(path), "must map names to what they change", ("points",))
    if not point:
        choice = ", ".join(f"{path.name}#{name}" for name in points)
        raise ScenarioError(str(path), f"holds several scenarios, name one: {choice}")
    named: dict[str, Data] = {str(name): changes for name, changes in points.items()}
    if point not in named:
        raise ScenarioError(str(path), f"no point {point!r}; {did_you_mean(point, named)}")
    return named[point]


def _plain(
    kind: type[Strict], data: Data, folder: Path, source: str, trail: tuple[str, ...]
) -> Data:
    """`data` merged over what it extends."""
    base: Data = {}
    if "extends" in data:
        parent = data["extends"]
        if not isinstance(parent, str):
            raise ScenarioError(
                source, f"must be a name or a file, not {shown(parent)}", ("extends",)
            )
        try:
            base, _ = _file(kind, parent, folder, trail)
        except ScenarioError as error:
            raise ScenarioError(source, str(error), ("extends",)) from None
    own = {key: value for key, value in data.items() if key != "extends"}
    return _merge_over(kind, base, own, folder, source, trail)


def _merge_over(
    kind: type[Strict],
    base: Data,
    changes: Mapping[str, Any],
    folder: Path,
    source: str,
    trail: tuple[str, ...],
) -> Data:
    """`base` with `changes` over it, whose own names and paths are seen from `folder`."""
    base, changes = dict(base), dict(changes)
    if kind is Scenario:
        fleet, workload = changes.get("fleet"), changes.get("workload")
        gate, old = changes.get("gate"), base.get("gate")
        if isinstance(gate, dict) and isinstance(old, dict):
            if gate.get("name", old.get("name")) != old.get("name"):
                base.pop("gate")
        if isinstance(fleet, str):
            fleet = {"extends": fleet}
        if isinstance(fleet, dict) and "extends" in fleet:
            changes["fleet"] = _plain(Fleet, fleet, folder, f"{source}: fleet", trail)
            base.pop("fleet", None)
        if isinstance(workload, dict) and isinstance(workload.get("path"), str):
            path = str((folder / workload["path"]).absolute())
            changes["workload"] = workload | {"path": path}
        if isinstance(workload, dict) and isinstance(workload.get("paths"), dict):
            paths = {
                # What is no text is refused later, with the key's name.
                key: str((folder / path).absolute()) if isinstance(path, str) else path
                for key, path in workload["paths"].items()
            }
            changes["workload"] = workload | {"paths": paths}
    return _merged(base, changes)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Data:
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same_kind = value.get("kind", old.get("kind")) == old.get("kind")
            value = _merged(old, value) if same_kind else value
        result[key] = value
    return result


@lru_cache(maxsize=2)
def _presets(kind: type[Strict]) -> Mapping[str, tuple[Path, str]]:
    """File and point of every preset by name."""
    found: dict[str, tuple[Path, str]] = {}
    for path in sorted(_FOLDERS[kind].glob("*.yaml")):
        for point in read_yaml(path).get("points", [""]):
            found[f"{path.stem}-{point}" if point else path.stem] = (path, point)
    return found
