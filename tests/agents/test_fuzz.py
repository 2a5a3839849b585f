"""Whatever a model's files hold: a policy, or a ValueError that names the file; nothing is run."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.callbacks import best_score
from agents.model_files import read_policy_config, read_weights, save_policy
from agents.networks import MaskedPolicy, network_arguments
from agents.runs import Run
from envs.routing.env import RoutingEnv
from predictors.tensors import load_optimiser, put_weights, save_optimiser
from tests.agents.small import small_config
from tests.fuzzing import Effort, damaged, efforts, nested

TOKENS = [
    b"null",
    b"NaN",
    b"1e999",
    b"9" * 5000,
    b"[" * 1200,
    b'"__class__"',
    b"\xff",
    b"\x00",
    b"F4",
]
DTYPES = st.sampled_from("F16 BF16 F64 I8 I64 U64 BOOL F8_E4M3 F8_E5M2 F8_E8M0 F4 C64 X".split())


@pytest.fixture(scope="module")
def policy() -> MaskedPolicy:
    env = RoutingEnv(small_config().scenario)
    arguments = network_arguments([16], "tanh")
    return MaskedPolicy(env.observation_space, env.action_space, lambda _: 1e-3, **arguments)


@pytest.fixture(scope="module")
def folder(policy: MaskedPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy")
    config = small_config()
    save_policy(path, policy, config, RoutingEnv(config.scenario), 7)
    sum(parameter.sum() for parameter in policy.parameters()).backward()
    policy.optimizer.step()
    save_optimiser(path, policy.optimizer)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def check_load(path: Path, load: Callable[[], object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            load()
        except ValueError as error:
            assert str(path) in str(error)


@st.composite
def other_header(draw: st.DrawFn, data: bytes) -> bytes:
    """A safetensors file with something else in its header."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    name = draw(st.sampled_from(sorted(header)))
    entry = header[name]
    match draw(st.sampled_from("dtype shape offsets rename lose add value half".split())):
        case "dtype":
            entry["dtype"] = draw(DTYPES)
        case "shape":
            entry["shape"] = draw(st.lists(st.integers(-1, 2**63) | st.integers(0, 99), max_size=3))
        case "offsets":
            entry["data_offsets"] = draw(st.lists(st.integers(-1, 2**20), min_size=2, max_size=2))
        case "rename":
            header[draw(st.text(max_size=5))] = header.pop(name)
        case "lose":
            del header[name]
        case "add":
            header["__metadata__"] = draw(nested(st.text(max_size=3)))
        case "value":
            header[name] = draw(nested(st.sampled_from(["dtype", "shape", "data_offsets"])))
        case "half":
            # The same bytes, read as twice or half as many numbers.
            entry["dtype"] = draw(DTYPES)
            entry["shape"] = [2 * n for n in entry["shape"]] or [1]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


@efforts
def test_policy_config(effort: Effort, copied: Path) -> None:
    path = copied / "policy.json"
    whole = path.read_bytes()
    plain: dict[str, Any] = json.loads(whole)
    keys = st.sampled_from(sorted(plain))

    @st.composite
    def changed(draw: st.DrawFn) -> bytes:
        data = copy.deepcopy(plain)
        data.pop(draw(keys))
        data[draw(keys | st.text(max_size=5))] = draw(nested(keys))
        return json.dumps(data).encode()

    @effort(40)
    @given(changed() | damaged(whole, TOKENS))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        check_load(path, lambda: read_policy_config(copied))

    check()


@efforts
def test_weights(effort: Effort, copied: Path, policy: MaskedPolicy) -> None:
    path, about = copied / "policy.safetensors", copied / "policy.json"
    whole, plain = path.read_bytes(), json.loads(about.read_text())

    @effort(40)
    @given(other_header(whole) | damaged(whole) | st.binary(max_size=40))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        about.write_text(json.dumps(plain | {"weights_sha256": digest}))
        check_load(path, lambda: put_weights(policy, *read_weights(copied)))

    check()


@efforts
def test_optimiser(effort: Effort, copied: Path, policy: MaskedPolicy) -> None:
    path = copied / "optimiser.safetensors"
    whole = path.read_bytes()
    optimiser = torch.optim.Adam(policy.parameters())

    @effort(40)
    @given(other_header(whole) | damaged(whole))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        check_load(path, lambda: load_optimiser(copied, optimiser))

    check()


@efforts
def test_files_of_a_run(effort: Effort, tmp_path: Path) -> None:
    run = Run(tmp_path)
    steps = {"steps": 5, "lost": 0.0, "e2e_mean_s": 1.5}
    files = {
        "validation.csv": b"steps,seed,e2e_mean_s\r\n512,1,2.5\r\n1024,1,2.0\r\n",
        "metadata.yaml": b"starts:\n- {date: today, at_step: 0, versions: {numpy: '2'}}\n",
        "best/score.json": json.dumps(steps).encode(),
    }
    (tmp_path / "best").mkdir()
    reads: dict[str, Callable[[], object]] = {
        "validation.csv": lambda: run.go_back_to(600, lambda _: 0),
        "metadata.yaml": lambda: run.note_start(600, {}),
        "best/score.json": lambda: best_score(run),
    }

    @effort(40)
    @given(
        st.sampled_from(sorted(files)).flatmap(
            lambda name: st.tuples(st.just(name), damaged(files[name], TOKENS))
        )
    )
    def check(found: tuple[str, bytes]) -> None:
        name, data = found
        (tmp_path / name).write_bytes(data)
        check_load(tmp_path / name, reads[name])

    check()
