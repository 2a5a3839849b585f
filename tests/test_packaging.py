"""What an installation holds, and that every module has one name."""

import ast
import configparser
import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import gymnasium
import pytest

from tests.paths import ROOT

PACKAGES = ("envs", "agents", "predictors", "baselines", "scripts")
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg")


def run(*words, **options):
    return subprocess.run(words, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_are_those_of_this_checkout(name):
    # Their names are generic: `agents`, for one, belongs to openai-agents, too.
    package = importlib.import_module(name)
    assert package.__file__ is not None
    assert Path(package.__file__).is_relative_to(ROOT)


def test_no_module_has_a_second_name():
    # Loaded under two names, a class would not be an instance of itself.
    try:
        spec = importlib.util.find_spec("servegym.envs")
    except ModuleNotFoundError:
        spec = None
    assert spec is None


@pytest.mark.parametrize("name", ["envs", "baselines", "envs.scenarios", "scripts.cli"])
def test_torch_is_not_imported(name):
    code = f"import sys, {name}; sys.exit('torch' in sys.modules)"
    assert run(sys.executable, "-c", code, cwd=ROOT).returncode == 0


def test_the_versions_agree():
    from envs import __version__

    assert importlib.metadata.version("servegym") == __version__
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_package_is_typed_and_packed():
    include = CONFIG["options.packages.find"]["include"].split()
    for name in PACKAGES:
        assert (ROOT / name / "py.typed").is_file()
        assert {name, f"{name}.*"} <= set(include)
    tops = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert tops - {"tests"} == set(PACKAGES)


def test_no_folder_of_modules_lacks_its_init():
    # `packages = find:` passes over such a folder without a word.
    for name in PACKAGES:
        for path in (ROOT / name).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path.parent


def test_every_import_is_declared():
    declared = CONFIG["options"]["install_requires"]
    declared += "\n".join(CONFIG["options.extras_require"].values())
    names = {line.split(" ")[0].lower() for line in declared.splitlines() if line.strip()}
    distributions = importlib.metadata.packages_distributions()
    for name in PACKAGES:
        for path in (ROOT / name).rglob("*.py"):
            for module in imported(path) - set(sys.stdlib_module_names) - set(PACKAGES):
                owners = {owner.lower() for owner in distributions.get(module, [])}
                owners = {owner.replace("_", "-") for owner in owners}
                assert owners & names, f"{path}: {module} is in no list of setup.cfg"


def imported(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found - {"__future__"}


def test_every_requirement_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    declared = CONFIG["options"]["install_requires"]
    declared += "\n".join(CONFIG["options.extras_require"].values())
    names = {line.split(" ")[0].lower() for line in declared.splitlines() if line.strip()}
    assert names <= {pin.replace("_", "-") for pin in pins}


def test_environments_are_registered_once():
    import envs

    assert set(envs.ENVIRONMENTS) <= set(gymnasium.registry)
    importlib.reload(envs)  # overriding a registered one would warn, and a warning fails here


def test_the_console_command_starts():
    command = shutil.which("servegym", path=str(Path(sys.executable).parent))
    assert command is not None, "not installed: make"
    result = run(command, "--help")
    assert result.returncode == 0, result.stderr
    assert "scenarios" in result.stdout


def test_the_wheel_holds_code_and_data_and_nothing_else(tmp_path):
    tree, out = tmp_path / "tree", tmp_path / "wheel"
    out.mkdir()
    skipped = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=skipped)
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, tree)
    code = "import sys; from setuptools import build_meta as b; b.build_wheel(sys.argv[1])"
    result = run(sys.executable, "-c", code, str(out), cwd=tree)
    assert result.returncode == 0, result.stderr
    (wheel,) = out.iterdir()
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    present = {
        path.relative_to(tree).as_posix()
        for name in PACKAGES
        for path in (tree / name).rglob("*")
        if path.is_file()
    }
    assert packed == present


def test_the_main_packages_import_from_anywhere(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    code = "import envs, agents, predictors, baselines, scripts; print(envs.__version__)"
    result = run(sys.executable, "-c", code, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
