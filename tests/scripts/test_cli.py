"""The `servegym` command: words in, text or JSON out, one line for every error."""

import json
import subprocess
import sys

import pytest

from envs.scenarios import load_scenario, scenario_names
from envs.workloads import TRACE_FORMATS, RequestTable
from scripts.cli import COMMANDS, main
from tests.paths import ROOT


def test_help_lists_every_command_and_an_example(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert "example:" in shown
    assert main([]) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself_and_ends_with_an_example(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: servegym {name}")
    example = shown.rpartition("example:\n")[2]
    assert example.strip().startswith(f"servegym {name}")


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from scripts.cli import main; main(['--help']);"
        "sys.exit(bool({'numpy', 'tyro', 'gymnasium', 'numba', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_wrong_words(capsys):
    assert main(["scenaros"]) == 2
    assert "did you mean scenarios?" in capsys.readouterr().err
    assert main(["scenarios", "--jsn"]) == 2
    assert "--json" in capsys.readouterr().err


def test_version(capsys):
    from envs import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_groups(capsys, monkeypatch):
    monkeypatch.setitem(COMMANDS, "mend all", ("scripts.scenarios", "mends all"))
    assert main(["mend", "--help"]) == 0
    assert "usage: servegym mend COMMAND" in capsys.readouterr().out
    assert main(["mend"]) == 2
    assert main(["mend", "al"]) == 2
    assert "did you mean mend all?" in capsys.readouterr().err
    assert main(["mend", "all"]) == 0


def test_expected_errors_are_one_line(capsys):
    assert main(["scenarios", "router-kv6k-rat8"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("servegym scenarios: router-kv6k-rat8: no scenario has this name")
    with pytest.raises(ValueError, match="no scenario"):
        main(["scenarios", "router-kv6k-rat8", "--debug"])


def test_unwritable_output_is_one_line(capsys, tmp_path):
    path = tmp_path / "absent" / "x.yaml"
    assert main(["scenarios", "router-kv6k-rate8", "-o", str(path)]) == 2
    assert capsys.readouterr().err == f"servegym scenarios: {path}: No such file or directory\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [(KeyboardInterrupt, 130), (ZeroDivisionError, None), (BrokenPipeError, 0)],
)
def test_other_ends(error, told, monkeypatch, capfd):
    def fail(args):
        raise error

    monkeypatch.setattr("scripts.scenarios.main", fail)
    if told is None:
        with pytest.raises(error):
            main(["scenarios"])
    else:
        assert main(["scenarios"]) == told


def test_a_value_error_of_another_package_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("scripts.scenarios.main", lambda args: json.loads("{"))
    with pytest.raises(json.JSONDecodeError):
        main(["scenarios"])


def test_scenarios_are_listed(capsys):
    assert main(["scenarios", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["scenarios"]
    assert [scenario["name"] for scenario in listed] == scenario_names()
    assert main(["scenarios"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(scenario_names())


def test_a_scenario_is_written_to_be_edited(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    assert main(["scenarios", "router-kv6k-rate8", "-o", str(path)]) == 0
    assert load_scenario(path) == load_scenario("router-kv6k-rate8")
    assert main(["scenarios", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["name"] == "router-kv6k-rate8"


def test_the_requests_of_a_scenario_are_written(tmp_path):
    path = tmp_path / "requests.parquet"
    words = ["scenarios", "router-kv6k-rate8", "--seed", "5", "-o", str(path)]
    assert main(words) == 0
    assert RequestTable.read(path) == load_scenario("router-kv6k-rate8").build(5)[0]


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("time,in,out\n0,10,1\n1500,20,2\n4000,30,6\n", encoding="utf-8")
    columns = ["arrival_s=time", "prompt_tokens=in", "output_tokens=out"]
    return ["trace", str(path), "--columns", *columns, "--time-unit", "ms"]


def test_a_trace_is_described(recorded, capsys):
    assert main([*recorded, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["requests"], data["duration_s"]) == (3, 4.0)
    assert data["output_tokens_mean"] == 3.0
    assert main(recorded) == 0
    assert "3 requests in 4.0 s" in capsys.readouterr().out


def test_a_trace_is_converted(recorded, tmp_path):
    path = tmp_path / "requests.parquet"
    assert main([*recorded, "-o", str(path)]) == 0
    assert RequestTable.read(path).arrival_s.tolist() == [0.0, 1.5, 4.0]


def test_faults_of_a_trace_are_one_line(recorded, tmp_path, capsys):
    assert main(["trace", str(tmp_path / "absent.csv")]) == 2
    assert main(["trace", recorded[1]]) == 2
    assert main([*recorded[:3], "arrival_s"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert "absent.csv" in errors[0]
    assert "--columns takes OURS=THEIRS" in errors[2]


def test_the_formats_of_a_trace_are_in_its_help(capsys):
    assert main(["trace", "--help"]) == 0
    assert f"{{{','.join(TRACE_FORMATS)}}}" in "".join(capsys.readouterr().out.split()).replace(
        "│", ""
    )


def test_one_request_and_strange_rates_of_a_trace(tmp_path, capsys):
    path = tmp_path / "own.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n5,1,2\n", encoding="utf-8")
    assert main(["trace", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "one request" in shown and "nan " not in shown
    assert "1 tenant, 1 model, 1 region, 1 interaction\n" in shown
    path.write_text("arrival_s,prompt_tokens,output_tokens\n5,1,2\n8000,1,2\n", encoding="utf-8")
    assert main(["trace", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "are the times in another unit? (--time-unit)" in shown and "2 interactions" in shown
    assert main(["trace", str(path), "--time-unit", "ms"]) == 0
    assert "another unit" not in capsys.readouterr().out


@pytest.mark.filterwarnings("default")
def test_our_warnings_are_one_line_each(tmp_path, capsys):
    path = tmp_path / "own.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n1,1,2\n0,1,0\n", encoding="utf-8")
    assert main(["trace", str(path), "--sort", "--on-zero", "drop"]) == 0
    error = capsys.readouterr().err
    assert error == "servegym: warning: 2 requests read, 1 row with 0 tokens dropped\n"


def test_an_unknown_format_says_how_to_convert(tmp_path, capsys):
    path = tmp_path / "own.csv"
    path.write_text("time,in,out\n0,10,1\n", encoding="utf-8")
    given = ["--trace", str(path), "--fleet", "v100-llama2-7b-x4"]
    for command in (["simulate"], ["benchmark", "routing", "-o", str(tmp_path / "out")]):
        assert main([*command, *given]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"servegym trace {path} --columns arrival_s=..." in error


def test_no_seeds_are_refused(capsys):
    assert main(["benchmark", "routing", "--seeds", "0"]) == 2
    assert "--seeds must be at least 1" in capsys.readouterr().err
