"""The Python examples of the documentation run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from baselines.admission import gates
from baselines.routing import routers
from baselines.scheduling import schedulers
from tests.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(page, block, id=f"{page.name}-{place}")
    for page in PAGES
    for place, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
]


# Where an example leaves the fitted range of a cost model, it is told, once a process.
@pytest.mark.filterwarnings("ignore::envs.hardware.OutsideFitWarning")
@pytest.mark.parametrize(("page", "block"), EXAMPLES)
def test_example_runs(page: Path, block: str, tmp_path: Path) -> None:
    # From a file, since compiled functions are cached beside their source.
    source = tmp_path / f"example_{page.stem.lower()}.py"
    source.write_text(block)
    spec = importlib.util.spec_from_file_location(source.stem, source)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_links_to_files_exist() -> None:
    for page in PAGES:
        for name in re.findall(
            r"`((?:docs|envs|tests|baselines|agents|scripts)/[\w./]+)`", page.read_text()
        ):
            assert (ROOT / name).exists(), f"{page.name} names {name}, which is not there"


def test_every_routing_rule_is_described() -> None:
    page = (ROOT / "docs" / "routers.md").read_text()
    missing = [name for name in routers() if f"`{name}`" not in page]
    assert not missing


def test_every_scheduler_is_described() -> None:
    page = (ROOT / "docs" / "tenants.md").read_text()
    missing = [name for name in schedulers() if f"`{name}`" not in page]
    assert not missing


def test_every_admission_policy_is_described() -> None:
    page = (ROOT / "docs" / "tenants.md").read_text()
    missing = [
        name
        for policy in gates().values()
        for name in (policy.name, *policy.parameter_names)
        if f"`{name}`" not in page
    ]
    assert not missing


def test_parameters_of_schedulers_are_described() -> None:
    page = (ROOT / "docs" / "tenants.md").read_text()
    names = {name for queue in schedulers().values() for name in queue.parameter_names}
    assert not [name for name in sorted(names) if f"`{name}`" not in page]
