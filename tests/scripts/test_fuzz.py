"""A damaged file of a results folder is made again, or told; it never stops a comparison."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from baselines.routing import router
from envs.scenarios import load_scenario
from envs.simulator import simulate
from scripts.experiments.store import Store, record
from tests.fuzzing import Effort, damaged, efforts, nested

TASK = ("router-kv6k-rate8", 1, "jsq")
IDENTITY: dict[str, Any] = {
    "version": "1",
    "requests": None,
    "scenarios": {"a": {"rate": 8.0, "fleet": ["x", 2]}},
    "routers": {"jsq": {"name": "jsq", "window": 1}},
}
KEYS = st.sampled_from([*IDENTITY, "a", "jsq", "identity", "hash"])
TOKENS = [b"!!int ''", b"!!python/name:os.system", b"\x00", b"\xff", b"2024-05-10", b"&a", b"*a"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    table, fleet = load_scenario(TASK[0], {"workload": {"requests": 30}}).build(1)
    result = simulate(table, fleet, router("jsq"))
    made = Store(tmp_path)
    made.claim(IDENTITY, {"command": "servegym"})
    made.write(record(*TASK, result, 0.1), result)
    return made


def changed(data: Any, keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`data` with one of its values, at the top or one level below, lost or replaced."""

    @st.composite
    def change(draw: st.DrawFn) -> Any:
        owner = whole = copy.deepcopy(data)
        inner = [key for key, value in whole.items() if isinstance(value, dict) and value]
        if inner and draw(st.booleans()):
            owner = owner[draw(st.sampled_from(inner))]
        key = draw(st.sampled_from(sorted(owner)))
        owner.pop(key)
        if draw(st.sampled_from([True, True, False])):
            owner[draw(st.just(key) | keys)] = draw(nested(keys))
        return whole

    return change()


@efforts
def test_config(effort: Effort, store: Store) -> None:
    path = store.folder / "config.yaml"
    whole = path.read_bytes()
    plain = yaml.safe_load(whole)
    data = changed(plain, KEYS) | changed(plain["identity"], KEYS | st.integers()).map(
        lambda identity: plain | {"identity": identity}
    )

    @effort(25)
    @given(data.map(lambda d: yaml.safe_dump(d).encode()) | damaged(whole, TOKENS))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                store.claim(IDENTITY, {"command": "servegym"})
            except ValueError as error:
                assert str(path) in str(error)
                assert path.read_bytes() == content
                return
        assert yaml.safe_load(path.read_text())["identity"].items() >= {"version": "1"}.items()

    check()


@efforts
def test_finished_tasks(effort: Effort, store: Store) -> None:
    (path,) = (store.folder / "requests").glob("*.parquet")
    whole, table, good = path.read_bytes(), pq.read_table(path), store.read(*TASK)
    assert good is not None
    keys = st.sampled_from([*good.__dict__, *good.summary])

    def packed(data: Any) -> bytes:
        pq.write_table(table.replace_schema_metadata({b"servegym": json.dumps(data)}), path)
        return path.read_bytes()

    @effort(25)
    @given(changed(good.__dict__, keys).map(packed) | damaged(whole))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = store.read(*TASK)
        if found is not None:
            assert (found.scenario, found.seed, found.router) == TASK
            assert all(isinstance(value, int | float) for value in found.summary.values())
            assert all(isinstance(curve, list) for curve in found.curves.values())

    check()
