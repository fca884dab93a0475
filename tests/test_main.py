"""The command line: what it prints and writes, and one line for every kind of bad file."""

import csv
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
import types
import zipfile
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import mcunc
from mcunc import recorded
from mcunc.__main__ import RUNS, main
from mcunc._internal import distributed, tables
from mcunc._internal.tables import read_table
from mcunc.runs import birds as birds_run
from mcunc.runs import birds_sweep
from mcunc.runs import uci as uci_run

RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.normal(size=(80, 3))
LABELS = (LOGITS + RNG.gumbel(size=LOGITS.shape)).argmax(axis=1)
START = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with mpl.rc_context():
        yield


def write_csv(path, rows, header=()):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([header] if header else [])
        writer.writerows(rows)


def rows(place=None, index=False):
    """Rows of logits (all their digits) with the label at `place`."""
    for number, (logits, label) in enumerate(zip(LOGITS.tolist(), LABELS.tolist(), strict=True)):
        row = [*logits]
        row.insert(len(row) if place is None else place, label)
        yield [number, *row] if index else row


@pytest.fixture
def undrawn(monkeypatch):
    """The page is not drawn, which takes longer than all the rest."""
    monkeypatch.setattr(mcunc.__main__, "_write", lambda found, target: None)


def run(*arguments):
    return main([str(argument) for argument in arguments])


# Reports --------------------------------------------------------------------------------------


def test_report_prints_the_text_and_writes_the_page_here(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    np.savez("data/my.run.npz", logits=LOGITS, labels=LABELS)
    before = Path("data/my.run.npz").read_bytes()
    assert run("report", "data/my.run.npz") == 0
    out, err = capsys.readouterr()
    assert out == f"{mcunc.report(LOGITS, LABELS)}\n\nWritten to my.run-report.png\n"
    assert err == ""
    assert Path("my.run-report.png").read_bytes().startswith(START[".png"])
    assert sorted(os.listdir()) == ["data", "my.run-report.png"]  # nothing else is left
    assert Path("data/my.run.npz").read_bytes() == before


@pytest.mark.parametrize("name", ["page.pdf", "PAGE.SVG"])
def test_pages_are_of_the_kind_asked_for(name):
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    Path(name).write_text("an older page")
    assert run("report", "a.npz", "--output", name) == 0
    assert Path(name).read_bytes().startswith(START[Path(name).suffix.lower()])
    assert sorted(os.listdir()) == sorted(["a.npz", name])


def test_options_reach_the_report(undrawn, capsys):
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    assert run("report", "a.npz", "--bins", 4, "--seed", 3) == 0
    assert capsys.readouterr().out.startswith(str(mcunc.report(LOGITS, LABELS, bins=4, seed=3)))


@pytest.mark.parametrize(
    ("header", "place"),
    [
        ((), None),
        (("a", "b", "c", "label"), None),
        (("0", "1", "2", "label"), None),  # as pandas writes columns without names
        (("Labels ", "0", "1", "2"), 0),
        (("a", "LABEL", "b", "c"), 1),
    ],
)
def test_a_table_holds_what_the_arrays_hold(header, place):
    write_csv("a.csv", rows(place), header)
    logits, labels, _ = read_table("a.csv")
    assert (logits == LOGITS).all()
    assert (labels == LABELS).all()


def test_a_table_gives_the_report_of_the_arrays(undrawn, capsys):
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    write_csv("a.csv", rows(1), ("a", "label", "b", "c"))
    texts = []
    for name in ("a.npz", "a.csv"):
        assert run("report", name) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_tables_from_spreadsheets():
    """A byte-order mark, Windows line ends and empty lines."""
    write_csv("a.csv", rows(), ("a", "b", "c", "label"))
    text = Path("a.csv").read_text(encoding="utf-8").replace("\n\n", "\n")
    Path("b.csv").write_bytes(("\ufeff" + text + "\r\n,,,\r\n").encode())
    assert (read_table("b.csv")[0] == LOGITS).all()


def test_single_precision_archives_are_taken_as_they_are(undrawn, capsys):
    np.savez_compressed("a.npz", logits=LOGITS.astype("f2"), labels=LABELS.astype("u1"), more=[1])
    assert run("report", "a.npz") == 0
    assert capsys.readouterr().out.startswith(str(mcunc.report(LOGITS.astype("f2"), LABELS)))


def test_other_arrays_of_an_archive_are_left_alone(undrawn, capsys):
    np.savez("a.npz", logits=LOGITS, labels=LABELS, names=np.array(["a", None], dtype=object))
    assert run("report", "a.npz") == 0
    assert capsys.readouterr().out.startswith(str(mcunc.report(LOGITS, LABELS)))


def test_labels_of_a_table_may_be_written_as_decimals():
    write_csv("a.csv", ([*row[:-1], f" {row[-1]}.0"] for row in rows()))
    assert (read_table("a.csv")[1] == LABELS).all()


# Bad files ------------------------------------------------------------------------------------


class Malicious:
    """Unpickled, it would make a file."""

    def __reduce__(self):
        return (open, ("trace", "w"))


def malicious(path):
    np.savez(path, logits=LOGITS, labels=np.array([Malicious()] * 80, dtype=object))


def raw_pickle(path):
    Path(path).write_bytes(pickle.dumps(Malicious()))


def archive(**arrays):
    return lambda path: np.savez(path, **arrays)


def text(content, encoding="utf-8"):
    return lambda path: Path(path).write_bytes(content.encode(encoding))


def damaged(path):
    np.savez(path, logits=LOGITS, labels=LABELS)
    content = bytearray(Path(path).read_bytes())
    content[300:400] = b"x" * 100
    Path(path).write_bytes(content)


def cut_short(path):
    np.savez(path, logits=LOGITS, labels=LABELS)
    Path(path).write_bytes(Path(path).read_bytes()[:1000])


def single_array(path):
    with open(path, "wb") as file:
        np.save(file, LOGITS)


def pickled(path):
    np.savez(path, logits=LOGITS, labels=np.array([{}] * 80, dtype=object))


def other_archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "x")


def indexed(path):
    write_csv(path, rows(index=True), ("", "0", "1", "2", "label"))


BAD = {
    "no-such-file.npz": (lambda path: None, "no-such-file.npz: cannot be read (No such file"),
    "a-folder.csv": (lambda path: os.mkdir(path), "a-folder.csv: cannot be read"),
    "scores.txt": (text("1,2,0"), "expected an .npz, .csv or .tsv file"),
    "no-ending": (text("1,2,0"), "expected an .npz, .csv or .tsv file"),
    "empty.npz": (text(""), "no sound .npz file"),
    "garbage.npz": (text("garbage" * 50), "no sound .npz file"),
    "damaged.npz": (damaged, "no sound .npz file"),
    "cut-short.npz": (cut_short, "no sound .npz file"),
    "pickled.npz": (pickled, "Python objects"),
    "malicious.npz": (malicious, "Python objects"),
    "raw-pickle.npz": (raw_pickle, "Python objects, or something else"),
    "single.npz": (single_array, "holds a single array"),
    "zip.npz": (other_archive, "has no array logits and no labels; it has readme.txt"),
    "names.npz": (archive(x=LOGITS, labels=LABELS), "has no array logits; it has x, labels"),
    "nothing.npz": (archive(), "it has nothing"),
    "flat.npz": (archive(logits=LOGITS[:, 0], labels=LABELS), "logits: expected 2 axes"),
    "short.npz": (archive(logits=LOGITS, labels=LABELS[:9]), "labels: has 9 values for 80 cases"),
    "nan.npz": (archive(logits=LOGITS * np.nan, labels=LABELS), "logits: contains NaN"),
    "words.npz": (archive(logits=LOGITS.astype(str), labels=LABELS), "logits: "),
    "empty.csv": (text(""), "empty.csv: is empty"),
    "blank.csv": (text("\n\n,,\n"), "blank.csv: is empty"),
    "header.csv": (text("a,b,label\n"), "has a header and no rows"),
    "word.csv": (text("a,b,label\n1,2,0\n1,x,1\n"), "row 3 has 'x' in 'b', which is no number"),
    "mixed.csv": (
        text("1,x,0\n1,2,1\n"),
        "no column called label; its first row, the header, has '1', 'x', '0'",
    ),
    "gap.csv": (text("1,2,0\n1,,1\n"), "row 2 has '' in 'column 2', which is no number"),
    "ragged.csv": (text("1,2,0\n\n1,2\n"), "row 3 has 2 cells, the first row has 3"),
    "nan.csv": (text("nan,2,0\n" * 30), "row 1 has 'NaN' in 'column 1', which is no number"),
    "huge.csv": (text("logit_0,logit_1,y\n" + "1e999,2,0\n" * 30), "logits: "),
    "fraction.csv": (text("1,2,0.5\n" * 30), "'column 3' holds '0.5'"),
    "few.csv": (text("logit_0,logit_1,y\n" + "1,2,0\n" * 3), "at least 20"),
    "spaces.csv": (text("1 2 0\n"), "with commas, semicolons or tabs between"),
    "latin.csv": (text("é,b,label\n", "latin-1"), "no text in UTF-8"),
    "indexed.csv": (indexed, "index=False"),
    "unnamed.csv": (text(",a,b,label\n" + "0,1,2,0\n" * 30), "index=False"),
    "numbered.csv": (text("0,1,2\n1,2,0\n"), "call the column of the labels label"),
    "species.csv": (text("a,b,species\n1,2,0\n"), "call it so, or name it with --label"),
    "long.csv": (text("1,2,0\n1," + "x" * 1000 + ",0\n"), f"row 2 has '{'x' * 40}' in"),
    "twice.csv": (text("label,a,b,labels\n0,1,2,0\n"), "2 columns that may be the label"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_one_line(name, capsys):
    make, message = BAD[name]
    make(name)
    assert run("report", name) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mcunc: ")
    assert err.count("\n") == 1
    assert message in err
    assert [file for file in os.listdir() if file != name] == []


@pytest.mark.parametrize(
    ("option", "value"), [("bins", 0), ("bins", -1), ("bins", 10**30), ("seed", -1)]
)
def test_wrong_numbers_get_one_line(option, value, capsys):
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    assert run("report", "a.npz", f"--{option}", value) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"mcunc: {option}: must lie between .*\n", err)
    assert os.listdir() == ["a.npz"]


def test_an_interrupted_report_does_not_promise_to_resume(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    monkeypatch.setattr(mcunc, "report", interrupted, raising=False)
    assert run("report", "a.npz") == 130
    assert capsys.readouterr() == ("", "mcunc: interrupted\n")


# Outputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["a.npz", "page.jpg", "page"])
def test_other_outputs_are_refused_before_anything_is_read(output, capsys):
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    before = Path("a.npz").read_bytes()
    assert run("report", "a.npz", "--output", output) == 2
    assert "must end in .png, .pdf, .svg" in capsys.readouterr().err
    assert Path("a.npz").read_bytes() == before
    assert os.listdir() == ["a.npz"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_the_input_is_never_overwritten_under_another_name(link, capsys):
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    before = Path("a.npz").read_bytes()
    link("a.npz", "page.png")
    assert run("report", "a.npz", "--output", "page.png") == 2
    assert "page.png is the file to be judged" in capsys.readouterr().err
    assert Path("a.npz").read_bytes() == Path("page.png").read_bytes() == before


@pytest.mark.parametrize("output", ["folder.png", "a.npz/page.png"])
def test_where_the_page_cannot_be_written_the_text_is_printed(output, capsys):
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    os.mkdir("folder.png")
    assert run("report", "a.npz", "--output", output) == 2
    out, err = capsys.readouterr()
    assert out == f"{mcunc.report(LOGITS, LABELS)}\n"
    assert err.startswith(f"mcunc: {output}: cannot be written")
    assert err.count("\n") == 1
    assert sorted(os.listdir()) == ["a.npz", "folder.png"]


def test_a_page_that_breaks_off_leaves_the_older_one_whole(monkeypatch, capsys):
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    Path("page.png").write_text("an older page")

    def full(figure, path, **options):
        Path(path).write_text("half a pa")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mpl.figure.Figure, "savefig", full)
    assert run("report", "a.npz", "--output", "page.png") == 2
    out, err = capsys.readouterr()
    assert out.startswith(mcunc.report(LOGITS, LABELS).headline)
    assert "No space left on device" in err
    assert Path("page.png").read_text() == "an older page"
    assert sorted(os.listdir()) == ["a.npz", "page.png"]


# Runs -----------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """Calls of a stand-in for the long run; it raises what `calls.error` is."""
    record = types.SimpleNamespace(made=[], error=None)

    def run_calibration(dataset="cifar10", seed=0, folder="runs", device="cpu"):
        record.made.append((dataset, seed, folder, device))
        if record.error is not None:
            raise record.error
        return Path(folder) / f"calibration-{dataset}-seed{seed}.npz"

    stand_in = types.SimpleNamespace(run_calibration=run_calibration)
    monkeypatch.setattr(mcunc, "experiments", stand_in, raising=False)
    return record


def test_run_makes_each_seed_and_prints_where(calls, capsys):
    options = ["--data", "cifar100", "--seed", 0, 2, "--folder", "f", "--device", "cuda"]
    assert run("run", "calibration", *options) == 0
    assert calls.made == [("cifar100", 0, "f", "cuda"), ("cifar100", 2, "f", "cuda")]
    paths = [Path("f") / f"calibration-cifar100-seed{seed}.npz" for seed in (0, 2)]
    assert capsys.readouterr().out.split() == [str(path) for path in paths]


def test_run_has_defaults(calls):
    assert run("run", "calibration") == 0
    assert calls.made == [("cifar10", 0, "runs", "cpu")]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "mcunc: interrupted; the same command goes on from there"),
        (FileNotFoundError("no data;\nset MCUNC_DATA"), 2, "mcunc: no data; set MCUNC_DATA"),
        (ValueError("seed: must lie between"), 2, "mcunc: seed: must lie between"),
    ],
)
def test_run_stops_with_one_line(calls, capsys, error, status, message):
    calls.error = error
    assert run("run", "calibration", "--seed", 0, 1) == status
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{message}\n")
    assert len(calls.made) == 1


def test_an_error_of_the_program_is_not_hidden(calls):
    calls.error = TypeError("a bug")
    with pytest.raises(TypeError, match="a bug"):
        run("run", "calibration")


# The parser -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.npz", "a.csv"])
def test_groups_reach_the_report(name, undrawn, capsys):
    """The printed report is that of `mcunc.report` with the same groups, and another without."""
    groups = np.arange(80) // 4
    if name == "a.npz":
        np.savez(name, logits=LOGITS, labels=LABELS, patient=groups)
    else:
        names = ("logit_0", "logit_1", "logit_2", "label", "patient")
        write_csv(
            name, ([*row, f"p{group:02}"] for row, group in zip(rows(), groups, strict=True)), names
        )
    assert run("report", name, "--groups", "patient") == 0
    grouped = capsys.readouterr().out
    assert grouped.startswith(str(mcunc.report(LOGITS, LABELS, groups=groups)))
    assert run("report", name) == 0
    assert capsys.readouterr().out != grouped


@pytest.mark.parametrize("name", ["a.npz", "a.csv"])
def test_labels_and_logits_can_be_named(name, undrawn, capsys):
    if name == "a.npz":
        np.savez(name, out=LOGITS, species=LABELS)
        names = ["out"]
    else:
        names = ["a", "b", "c"]
        write_csv(name, rows(index=True), ("id", *names, "species"))
    assert run("report", name) == 2
    assert "mcunc: a" in capsys.readouterr().err
    assert run("report", name, "--label", "species", "--logits", *names) == 0
    assert capsys.readouterr().out.startswith(str(mcunc.report(LOGITS, LABELS)))


def test_the_rules_are_in_the_help(capsys):
    with pytest.raises(SystemExit):
        run("report", "--help")
    assert tables.RULES in capsys.readouterr().out


def test_alone_it_prints_help(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "usage: python -m mcunc" in out
    assert "report" in out
    assert "run" in out


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        run("--version")
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"mcunc {mcunc.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("report",),
        ("run",),
        ("run", "nonsense"),
        ("run", "calibration", "--data", "mnist"),
        ("run", "calibration", "--seed", "x"),
        ("report", "a.npz", "--bins", "many"),
        ("nonsense",),
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert "usage: " in capsys.readouterr().err


def test_as_a_program_it_loads_no_torch():
    """One real process: the exit status, and what a report costs to import."""
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    code = (
        "import runpy, sys\n"
        "for arguments in (['run', 'birds', '--help'], ['report', 'a.npz']):\n"
        "    sys.argv = ['mcunc', *arguments]\n"
        "    try: runpy.run_module('mcunc', run_name='__main__')\n"
        "    except SystemExit as stop: print('status', stop.code, 'torch' in sys.modules)"
    )
    root = str(Path(mcunc.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    usage, report = result.stdout.split("status 0 False\n", 1)
    assert usage.startswith("usage: python -m mcunc run birds [-h]")
    assert report.startswith(mcunc.report(LOGITS, LABELS).headline)
    assert report.endswith("Written to a-report.png\nstatus 0 False\n")
    assert result.stderr == ""
    assert Path("a-report.png").stat().st_size > 10_000


@pytest.fixture
def said(monkeypatch):
    """Calls (function, arguments) of stand-ins for all runs; each prints a path."""
    made = []

    def stand_in(name):
        def run_it(**given_):
            made.append((name, given_))
            return "x.npz"

        return run_it

    functions = {function: stand_in(function) for function, _ in RUNS.values()}
    monkeypatch.setattr(mcunc, "experiments", types.SimpleNamespace(**functions), raising=False)
    return made


def test_every_run_is_given_seeds_and_folder(said, capsys):
    for name, (function, options) in RUNS.items():
        names = {"name": "yacht"} if name == "uci" else {}
        device = {"device": "cpu"} if "device" in options else {}
        sets = ["--set", "yacht"] if names else []
        assert run("run", name, *sets, "--seed", 2, 5, "--folder", "f") == 0
        expected = [(function, names | device | {"seed": s, "folder": "f"}) for s in (2, 5)]
        assert said[-2:] == expected
        assert capsys.readouterr().out == "x.npz\n" * 2


def test_the_functions_take_what_the_options_say():
    for function, options in RUNS.values():
        known = inspect.signature(getattr(mcunc.experiments, function)).parameters
        names = {settings.get("dest", option) for option, settings in options.items()}
        assert {"seed", "folder", *(names - {"set"})} <= known.keys(), function
        assert ("device" in known) == ("device" in options)


def test_the_choices_are_those_that_the_runs_know():
    """They are written out, so that --help needs no torch."""
    for name, option, known in [
        ("birds", "network", birds_run.SETTINGS), ("birds", "arm", birds_run.ARMS),
        ("birds-tuning", "network", birds_sweep.TRIALS),
        ("birds-repeated", "network", birds_sweep.CONTESTS), ("uci", "set", mcunc.data.UCI),
        ("uci", "protocol", uci_run.PROTOCOLS),
    ]:  # fmt: skip
        assert sorted(RUNS[name][1][option]["choices"]) == sorted(known)


def test_the_commands_in_the_records_are_understood(said):
    """Each would make the run again under the name that its files have."""
    paths = sorted(recorded.FOLDER.glob("*.json"))
    assert len(paths) > 20
    for path in paths:
        command = json.loads(path.read_text(encoding="utf-8"))["command"]
        arguments = command.removeprefix("python -m mcunc ").split()
        assert main(arguments) == 0, command
        function, given_ = said[-1]
        assert RUNS[arguments[1]][0] == function
        for option, value in zip(arguments[2::2], arguments[3::2], strict=True):
            names = {"--data": "dataset", "--set": "name"}
            assert str(given_[names.get(option, option[2:])]) in (value, str(float(value)) if (
                value.replace(".", "", 1).isdigit()) else value)  # fmt: skip


OPTIONS = {
    "data": "cifar10", "network": "googlenet", "arm": "last", "drop": "0.5", "epochs": "3",
    "size": "96", "rate": "0.1", "decay": "0.1", "inner": None, "split": "1", "splits": "2",
    "set": "yacht", "protocol": "paper", "device": "cuda", "epoch": "3",
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_options_of_other_runs_are_errors(name, said, capsys):
    for option in OPTIONS.keys() - RUNS[name][1].keys() - {"epoch"}:
        if any(own.startswith(option) for own in RUNS[name][1]):
            continue  # argparse takes an unambiguous beginning for the whole
        value = [OPTIONS[option]] if OPTIONS[option] else []
        with pytest.raises(SystemExit) as stop:
            run("run", name, f"--{option}", *value)
        assert stop.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith(f"usage: python -m mcunc run {name} [-h]")
        assert f"unrecognized arguments: --{option}" in err
    assert said == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("birds --arm lst", "argument --arm: invalid choice: 'lst'"),
        ("birds --drop 0.5", "--drop: the standard network has no dropout; name another --arm"),
        ("birds --arm standard --drop 0.5", "--drop: the standard network has no dropout"),
        ("birds --network googlenet-96", "argument --network: invalid choice: 'googlenet-96'"),
        ("birds-tuning --network googlenet_imagenet", "argument --network: invalid choice"),
        ("uci --set boston", "argument --set: invalid choice: 'boston'"),
        ("uci --protocol papers", "argument --protocol: invalid choice: 'papers'"),
        ("trucks --device gpu", "argument --device: invalid choice: 'gpu'"),
        ("calibration --epochs 2", "unrecognized arguments: --epochs 2"),
    ],
)
def test_choices_are_checked_before_anything_runs(command, message, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", *command.split()])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"usage: python -m mcunc run {command.split()[0]} ")
    assert message in err
    assert said == []


def test_all_sets_are_run_unless_some_are_named(said):
    assert main(["run", "uci", "--folder", "x"]) == 0
    assert {given_["name"] for _, given_ in said} == mcunc.data.UCI.keys()
    said.clear()
    assert run("run", "uci", "--set", "yacht", "energy", "--protocol", "rerun", "--seed", 3) == 0
    assert [given_ for _, given_ in said] == [
        {"name": name, "protocol": "rerun", "seed": 3} for name in ("yacht", "energy")
    ]


def test_the_run_on_birds_is_given_all_that_was_said(said):
    command = (
        "run birds --network googlenet --arm last --drop 0.1 --epochs 3 --size 96 --rate 0.02 "
        "--decay 0.003 --inner --seed 4 --split 7 --folder x --device cuda"
    )
    assert main(command.split()) == 0
    expected = {
        "network": "googlenet", "arm": "last", "drop": 0.1, "epochs": 3, "size": 96, "rate": 0.02,
        "decay": 0.003, "inner": True, "seed": 4, "split": 7, "folder": "x", "device": "cuda",
    }  # fmt: skip
    assert said == [("run_birds", expected)]


@pytest.mark.parametrize("name", ["calibration", "uci", "posterior"])
def test_what_one_process_makes_is_not_made_by_several(name, monkeypatch, capsys):
    """Each would write the same file, and begin from the same weights for nothing."""
    monkeypatch.setattr(distributed, "place", lambda: (1, 2))
    assert main(["run", name]) == 2
    expected = f"mcunc: {name}: is made by one process; run it without torchrun\n"
    assert capsys.readouterr().err == expected


def test_processes_of_torchrun_meet_once_for_all_seeds(said, monkeypatch):
    met = []

    @contextmanager
    def joined(device):
        met.append(device)
        yield f"{device}:1"

    monkeypatch.setattr(distributed, "joined", joined)
    assert main(["run", "birds", "--seed", "0", "1", "2", "--device", "cuda"]) == 0
    assert met == ["cuda"]
    assert [(g["seed"], g["device"]) for _, g in said] == [(seed, "cuda:1") for seed in range(3)]


def test_a_package_that_is_missing_is_named(monkeypatch, capsys):
    def missing(**given_):
        raise ImportError("it is in an extra")

    stand_in = types.SimpleNamespace(run_tuning=missing)
    monkeypatch.setattr(mcunc, "experiments", stand_in, raising=False)
    assert main(["run", "birds-tuning"]) == 2
    assert capsys.readouterr().err == "mcunc: it is in an extra\n"
