"""The command line: what it prints and writes, and one line for every kind of bad file."""

import csv
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
from mcunc import _parallel
from mcunc.__main__ import main, read_logits

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


@pytest.mark.parametrize("name", ["page.png", "page.pdf", "page.svg", "PAGE.SVG"])
def test_pages_are_of_the_kind_asked_for(name):
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    Path(name).write_text("an older page")
    assert run("report", "a.npz", "--output", name) == 0
    assert Path(name).read_bytes().startswith(START[Path(name).suffix.lower()])
    assert sorted(os.listdir()) == sorted(["a.npz", name])


def test_options_reach_the_report(capsys):
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    assert run("report", "a.npz", "--bins", 4, "--seed", 3) == 0
    assert capsys.readouterr().out.startswith(str(mcunc.report(LOGITS, LABELS, bins=4, seed=3)))


@pytest.mark.parametrize(
    ("header", "place"),
    [
        ((), None),
        (("a", "b", "c", "species"), None),
        (("a", "b", "c", "label"), None),
        (("0", "1", "2", "label"), None),  # as pandas writes columns without names
        (("Labels ", "0", "1", "2"), 0),
        (("a", "LABEL", "b", "c"), 1),
    ],
)
def test_a_table_holds_what_the_arrays_hold(header, place):
    write_csv("a.csv", rows(place), header)
    logits, labels = read_logits("a.csv")
    assert (logits == LOGITS).all()
    assert (labels == LABELS).all()


def test_a_table_gives_the_report_of_the_arrays(capsys):
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
    assert (read_logits("b.csv")[0] == LOGITS).all()


def test_single_precision_archives_are_taken_as_they_are(capsys):
    np.savez_compressed("a.npz", logits=LOGITS.astype("f2"), labels=LABELS.astype("u1"), more=[1])
    assert run("report", "a.npz") == 0
    assert capsys.readouterr().out.startswith(str(mcunc.report(LOGITS.astype("f2"), LABELS)))


def test_other_arrays_of_an_archive_are_left_alone(capsys):
    np.savez("a.npz", logits=LOGITS, labels=LABELS, names=np.array(["a", None], dtype=object))
    assert run("report", "a.npz") == 0
    assert capsys.readouterr().out.startswith(str(mcunc.report(LOGITS, LABELS)))


def test_labels_of_a_table_may_be_written_as_decimals():
    write_csv("a.csv", ([*row[:-1], f" {row[-1]}.0"] for row in rows()))
    assert (read_logits("a.csv")[1] == LABELS).all()


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
    "scores.txt": (text("1,2,0"), "expected an .npz or a .csv file"),
    "no-ending": (text("1,2,0"), "expected an .npz or a .csv file"),
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
    "word.csv": (text("a,b,label\n1,2,0\n1,x,1\n"), "row 3 has 'x', which is no number"),
    "mixed.csv": (text("1,x,0\n1,2,1\n"), "row 1 has 'x', which is no number"),
    "gap.csv": (text("1,2,0\n1,,1\n"), "row 2 has '', which is no number"),
    "ragged.csv": (text("1,2,0\n\n1,2\n"), "row 3 has 2 cells, the first row has 3"),
    "nan.csv": (text("nan,2,0\n" * 30), "logits: contains NaN"),
    "huge.csv": (text("1e999,2,0\n" * 30), "logits: contains NaN or infinity"),
    "fraction.csv": (text("1,2,0.5\n" * 30), "labels: must be whole numbers"),
    "few.csv": (text("1,2,0\n" * 3), "at least 20"),
    "semicolon.csv": (text("1;2;0\n"), "with commas between"),
    "latin.csv": (text("é,b,label\n", "latin-1"), "no text in UTF-8"),
    "indexed.csv": (indexed, "index=False"),
    "unnamed.csv": (text(",a,b,species\n" + "0,1,2,0\n" * 30), "index=False"),
    "numbered.csv": (text("0,1,species\n1,2,0\n"), "name the column of labels label"),
    "long.csv": (text("1,2,0\n1," + "x" * 1000 + ",0\n"), f"row 2 has '{'x' * 40}', which"),
    "twice.csv": (text("label,a,b,labels\n0,1,2,0\n"), "two columns of labels"),
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


@pytest.mark.parametrize("output", ["folder.png", "nowhere/page.png"])
def test_where_the_page_cannot_be_written_the_text_is_printed(output, capsys):
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    os.mkdir("folder.png")
    assert run("report", "a.npz", "--output", output) == 2
    out, err = capsys.readouterr()
    assert out == f"{mcunc.report(LOGITS, LABELS)}\n"
    assert err.startswith(f"mcunc: --output: {output} cannot be written")
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
        "import runpy, sys; sys.argv = ['mcunc', 'report', 'a.npz']\n"
        "try: runpy.run_module('mcunc', run_name='__main__')\n"
        "except SystemExit as stop: print('status', stop.code, 'torch' in sys.modules)"
    )
    root = str(Path(mcunc.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout.startswith(mcunc.report(LOGITS, LABELS).headline)
    assert result.stdout.endswith("Written to a-report.png\nstatus 0 False\n")
    assert result.stderr == ""
    assert Path("a-report.png").stat().st_size > 10_000


def test_every_run_of_the_book_has_its_name(monkeypatch, capsys, tmp_path):
    """Names on the command line reach the functions, with seed and folder."""
    runs = {
        "posterior": "run_posterior",
        "dropout-spread": "run_spread",
        "birdwatch-dropout": "run_birdwatch",
        "birds-pretrained": "run_pretrained",
        "birds-heads": "run_heads",
    }
    for function in runs.values():
        made = lambda seed, folder, function=function: f"{function} {seed} {folder}"  # noqa: E731
        monkeypatch.setattr(mcunc.experiments, function, made)
    for name, function in runs.items():
        assert main(["run", name, "--seed", "2", "--folder", str(tmp_path)]) == 0
        assert capsys.readouterr().out == f"{function} 2 {tmp_path}\n"


def test_tuning_is_given_network_and_device(monkeypatch, capsys):
    monkeypatch.setattr(mcunc.experiments, "run_tuning", lambda *given_: given_)
    said = "run birds-tuning --network googlenet --seed 1 --folder x --device cuda"
    assert main(said.split()) == 0
    assert capsys.readouterr().out == "('googlenet', 1, 'x', 'cuda')\n"


def test_trucks_are_given_seed_folder_and_device(monkeypatch, capsys):
    monkeypatch.setattr(mcunc.experiments, "run_trucks", lambda *given_: given_)
    assert main(["run", "trucks", "--seed", "3", "--folder", "x", "--device", "cuda"]) == 0
    assert capsys.readouterr().out == "(3, 'x', 'cuda')\n"


def test_repeated_birds_are_given_network_splits_and_device(monkeypatch, capsys):
    monkeypatch.setattr(mcunc.experiments, "run_repeated", lambda *given_: given_)
    said = "run birds-repeated --network googlenet --splits 2 --folder x --device cuda"
    assert main(said.split()) == 0
    assert capsys.readouterr().out == "('googlenet', 2, 0, 'x', 'cuda')\n"


def test_all_sets_are_run_unless_some_are_named(monkeypatch, capsys):
    monkeypatch.setattr(mcunc.experiments, "run_uci", lambda *given_: given_)
    assert main(["run", "uci", "--folder", "x"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert sorted(said) == [f"('{name}', 'paper', 0, 'x')" for name in sorted(mcunc.data.UCI)]
    assert (
        main(["run", "uci", "--set", "yacht", "energy", "--protocol", "rerun", "--seed", "3"]) == 0
    )
    assert (
        capsys.readouterr().out == "('yacht', 'rerun', 3, 'runs')\n('energy', 'rerun', 3, 'runs')\n"
    )


@pytest.mark.parametrize("name", ["calibration", "uci", "posterior"])
def test_what_one_process_makes_is_not_made_by_several(name, monkeypatch, capsys):
    """Each would write the same file, and begin from the same weights for nothing."""
    monkeypatch.setattr(_parallel, "place", lambda: (1, 2))
    assert main(["run", name]) == 2
    expected = f"mcunc: {name}: is made by one process; run it without torchrun\n"
    assert capsys.readouterr().err == expected


def test_processes_of_torchrun_meet_once_for_all_seeds(monkeypatch, capsys):
    met = []

    @contextmanager
    def joined(device):
        met.append(device)
        yield f"{device}:1"

    monkeypatch.setattr(_parallel, "joined", joined)
    monkeypatch.setattr(mcunc.experiments, "run_birds", lambda *given_: (given_[8], given_[10]))
    assert main(["run", "birds", "--seed", "0", "1", "2", "--device", "cuda"]) == 0
    assert met == ["cuda"]
    assert capsys.readouterr().out.splitlines() == [f"({seed}, 'cuda:1')" for seed in range(3)]


def test_a_package_that_is_missing_is_named(monkeypatch, capsys):
    def missing(*given_):
        raise ImportError("it is in an extra")

    monkeypatch.setattr(mcunc.experiments, "run_tuning", missing)
    assert main(["run", "birds-tuning"]) == 2
    assert capsys.readouterr().err == "mcunc: it is in an extra\n"


def test_the_run_on_birds_is_given_all_that_was_said(monkeypatch, capsys):
    monkeypatch.setattr(mcunc.experiments, "run_birds", lambda *given_: given_)
    said = (
        "run birds --network googlenet --arm last --drop 0.1 --epochs 3 --size 96 "
        "--rate 0.02 --decay 0.003 --inner --seed 4 --split 7"
    )
    assert main([*said.split(), "--folder", "x", "--device", "cuda"]) == 0
    expected = ("googlenet", "last", 0.1, 3, 96, 0.02, 0.003, True, 4, "x", "cuda", 7)
    assert capsys.readouterr().out == f"{expected}\n"
