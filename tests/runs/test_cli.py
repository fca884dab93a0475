"""``python -m mcunc run``: which function is called with what, and what is refused."""

import inspect
import json
from contextlib import contextmanager
from functools import wraps

import pytest

from mcunc import data, recorded
from mcunc.__main__ import main
from mcunc._internal import distributed
from mcunc.runs.birds import Run
from mcunc.runs.cli import COMMANDS


def run(*arguments):
    return main(["run", *map(str, arguments)])


def flags_of(name):
    return {flag for flags, _ in COMMANDS[name].options for flag in flags}


class Calls(list):
    """Calls (name of the run, arguments) of stand-ins; they raise `error`, where it is set."""

    error = None


@pytest.fixture
def calls(monkeypatch):
    """Stand-ins for all runs; each returns a path."""
    calls = Calls()

    def stand_in(name, function):
        @wraps(function)
        def call(**arguments):
            calls.append((name, arguments))
            if calls.error is not None:
                raise calls.error
            return f"{name}-seed{arguments['seed']}.npz"

        return call

    for name, command in COMMANDS.items():
        function = stand_in(name, command.function)
        monkeypatch.setitem(COMMANDS, name, command._replace(function=function))
    return calls


def test_a_run_is_made_with_each_seed_and_prints_where(calls, capsys):
    options = ["--data", "cifar100", "--seed", 0, 2, "--folder", "f", "--device", "cpu"]
    assert run("calibration", *options) == 0
    expected = {"dataset": "cifar100", "folder": "f", "device": "cpu"}
    assert calls == [("calibration", expected | {"seed": seed}) for seed in (0, 2)]
    assert capsys.readouterr().out == "calibration-seed0.npz\ncalibration-seed2.npz\n"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (
            KeyboardInterrupt(),
            130,
            "mcunc: interrupted; the same command goes on from the last part that was kept",
        ),
        (FileNotFoundError("no data;\nset MCUNC_DATA"), 2, "mcunc: no data; set MCUNC_DATA"),
        (ValueError("seed: must lie between"), 2, "mcunc: seed: must lie between"),
        (ImportError("it is in an extra"), 2, "mcunc: it is in an extra"),
    ],
)
def test_a_run_stops_with_one_line(calls, capsys, error, status, message):
    calls.error = error
    assert run("calibration", "--seed", 0, 1) == status
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{message}\n")
    assert len(calls) == 1


def test_an_error_of_the_program_is_not_hidden(calls):
    calls.error = TypeError("a bug")
    with pytest.raises(TypeError, match="a bug"):
        run("calibration")


def test_every_run_is_given_seeds_and_folder(calls):
    assert len(COMMANDS) == 12
    for name in COMMANDS:
        sets = ["--set", "yacht"] if name == "uci" else []
        options = {"name": "yacht"} if name == "uci" else {}
        if "--device" in flags_of(name):
            options["device"] = "cpu"
        assert run(name, *sets, "--seed", 2, 5, "--folder", "f") == 0
        expected = [(name, options | {"seed": seed, "folder": "f"}) for seed in (2, 5)]
        assert calls[-2:] == expected


def test_the_functions_take_what_the_options_say():
    for name, command in COMMANDS.items():
        known = {*inspect.signature(command.function).parameters, "folder"}
        known |= {*inspect.signature(Run).parameters} if name == "birds" else set()
        names = {
            settings.get("dest", flags[0].removeprefix("--")) for flags, settings in command.options
        }
        assert {"seed", "folder", *names} <= known, name
        assert ("device" in known) == ("device" in names)


def test_the_commands_in_the_records_are_understood(calls):
    """Each would make the run again under the name that its files have."""
    paths = sorted(recorded.FOLDER.glob("*.json"))
    assert len(paths) > 20
    for path in paths:
        command = json.loads(path.read_text(encoding="utf-8"))["command"]
        arguments = command.removeprefix("python -m mcunc ").split()
        if "cuda" in arguments:  # which this machine may not have
            arguments[arguments.index("cuda")] = "cpu"
        assert main(arguments) == 0, command
        name, options = calls[-1]
        assert arguments[1] == name
        for option, value in zip(arguments[2::2], arguments[3::2], strict=True):
            key = {"--data": "dataset", "--set": "name", "--arm": "variant"}.get(option, option[2:])
            number = value.replace(".", "", 1).isdigit()
            assert str(options[key]) in (value, str(float(value)) if number else value)


OPTIONS = {
    "--data": "cifar10", "--network": "googlenet", "--variant": "last", "--drop": "0.5",
    "--epochs": "3", "--size": "96", "--rate": "0.1", "--decay": "0.1", "--inner": None,
    "--split": "1", "--splits": "2", "--set": "yacht", "--protocol": "paper", "--device": "cpu",
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_options_of_other_runs_are_errors(name, calls, capsys):
    for option in OPTIONS.keys() - flags_of(name):
        if any(own.startswith(option) for own in flags_of(name)):
            continue  # argparse takes an unambiguous beginning for the whole
        value = [OPTIONS[option]] if OPTIONS[option] else []
        with pytest.raises(SystemExit) as stop:
            run(name, option, *value)
        assert stop.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith(f"usage: python -m mcunc run {name} [-h]")
        assert f"unrecognized arguments: {option}" in err
    assert calls == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("birds --variant lst", "invalid choice: 'lst'"),
        ("birds --arm lst", "invalid choice: 'lst'"),
        ("birds --network googlenet-96", "argument --network: invalid choice: 'googlenet-96'"),
        ("birds-tuning --network googlenet_imagenet", "argument --network: invalid choice"),
        ("uci --set boston", "argument --set: invalid choice: 'boston'"),
        ("uci --protocol papers", "argument --protocol: invalid choice: 'papers'"),
        ("trucks --device gpu", "argument --device: invalid choice: 'gpu'"),
        ("calibration --data mnist", "argument --data: invalid choice: 'mnist'"),
        ("calibration --seed x", "argument --seed: invalid int value: 'x'"),
        ("calibration --epochs 2", "unrecognized arguments: --epochs 2"),
    ],
)
def test_choices_are_checked_before_anything_runs(command, message, calls, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*command.split())
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"usage: python -m mcunc run {command.split()[0]} ")
    assert message in err
    assert calls == []


@pytest.mark.parametrize("options", ["--drop 0.5", "--variant standard --drop 0.5"])
def test_the_standard_network_takes_no_probability_to_drop(options, capsys):
    assert run("birds", *options.split()) == 2
    assert capsys.readouterr().err.startswith("mcunc: drop: the standard network has no dropout;")


@pytest.mark.parametrize("arguments", [(), ("nonsense",)])
def test_a_run_must_be_named(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert "usage: python -m mcunc run" in capsys.readouterr().err


def test_the_help_says_what_each_run_does(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert "Train networks on CIFAR-10 without its trucks" in text


def test_all_sets_are_run_unless_some_are_named(calls):
    assert run("uci", "--folder", "x") == 0
    assert {options["name"] for _, options in calls} == data.UCI.keys()
    calls.clear()
    assert run("uci", "--set", "yacht", "energy", "--protocol", "rerun", "--seed", 3) == 0
    assert [options for _, options in calls] == [
        {"name": name, "protocol": "rerun", "seed": 3} for name in ("yacht", "energy")
    ]


def test_the_run_on_birds_is_given_every_option(calls):
    command = (
        "birds --network googlenet --variant last --drop 0.1 --epochs 3 --size 96 --rate 0.02 "
        "--decay 0.003 --inner --seed 4 --split 7 --folder x"
    )
    assert run(*command.split()) == 0
    expected = {
        "network": "googlenet", "variant": "last", "drop": 0.1, "epochs": 3, "size": 96,
        "rate": 0.02, "decay": 0.003, "inner": True, "seed": 4, "split": 7, "folder": "x",
        "device": "cpu",
    }  # fmt: skip
    assert calls == [("birds", expected)]


@pytest.mark.parametrize("name", ["calibration", "uci", "posterior"])
def test_what_one_process_makes_is_not_made_by_several(name, monkeypatch, capsys):
    """Each would write the same file, and begin from the same weights for nothing."""
    monkeypatch.setattr(distributed, "rank_and_world_size", lambda: (1, 2))
    assert run(name) == 2
    expected = f"mcunc: {name}: is made by one process; run it without torchrun\n"
    assert capsys.readouterr().err == expected


def test_processes_of_torchrun_meet_once_for_all_seeds(calls, monkeypatch):
    met = []

    @contextmanager
    def joined(device):
        met.append(device)
        yield f"{device}:1"

    monkeypatch.setattr(distributed, "joined", joined)
    assert run("birds", "--seed", 0, 1, 2, "--device", "cuda") == 0
    assert met == ["cuda"]
    assert [(options["seed"], options["device"]) for _, options in calls] == [
        (seed, "cuda:1") for seed in range(3)
    ]
