"""The command line: what it prints and writes, and one line for every kind of bad file."""

import csv
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import mcunc
from mcunc.__main__ import main
from mcunc._internal import tables
from mcunc._internal.tables import read_table

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
    monkeypatch.setattr(mcunc.__main__, "_write", lambda report, target: None)


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
        (("0", "1", "2", "label"), None),  # as pandas writes columns without names
        (("Labels ", "0", "1", "2"), 0),
        (("logit_a", "LABEL", "logit_b", "logit_c"), 1),
    ],
)
def test_a_table_holds_what_the_arrays_hold(header, place):
    write_csv("a.csv", rows(place), header)
    logits, labels, _ = read_table("a.csv")
    assert (logits == LOGITS).all()
    assert (labels == LABELS).all()


def test_a_table_gives_the_report_of_the_arrays(undrawn, capsys):
    np.savez("a.npz", logits=LOGITS, labels=LABELS)
    write_csv("a.csv", rows(1), ("0", "label", "1", "2"))
    texts = []
    for name in ("a.npz", "a.csv"):
        assert run("report", name) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_tables_from_spreadsheets():
    """A byte-order mark, Windows line ends and empty lines."""
    write_csv("a.csv", rows(), ("0", "1", "2", "label"))
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
    write_csv("a.csv", ([*row[:-1], f" {row[-1]}.0"] for row in rows()), "012y")
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
    "no-such-file.npz": (lambda path: None, "No such file or directory: 'no-such-file.npz'"),
    "a-folder.csv": (lambda path: os.mkdir(path), "'a-folder.csv'"),
    "scores.txt": (text("1,2,0"), "expected an .npz, .csv or .tsv file"),
    "no-ending": (text("1,2,0"), "expected an .npz, .csv or .tsv file"),
    "empty.npz": (text(""), "no sound .npz file"),
    "garbage.npz": (text("garbage" * 50), "no sound .npz file"),
    "damaged.npz": (damaged, "no sound .npz file"),
    "cut-short.npz": (cut_short, "no sound .npz file"),
    "pickled.npz": (pickled, "without Python objects"),
    "malicious.npz": (malicious, "without Python objects"),
    "raw-pickle.npz": (raw_pickle, "without Python objects"),
    "single.npz": (single_array, "write it by np.savez(file, logits=…, labels=…)"),
    "zip.npz": (other_archive, "has no array logits and no labels; it has readme.txt"),
    "names.npz": (archive(x=LOGITS, labels=LABELS), "has no array logits; it has x, labels"),
    "nothing.npz": (archive(), "it has nothing"),
    "flat.npz": (archive(logits=LOGITS[:, 0], labels=LABELS), "logits: expected 2 axes"),
    "short.npz": (archive(logits=LOGITS, labels=LABELS[:9]), "labels: has 9 values for 80 cases"),
    "nan.npz": (archive(logits=LOGITS * np.nan, labels=LABELS), "logits: contains NaN"),
    "words.npz": (archive(logits=LOGITS.astype(str), labels=LABELS), "logits: "),
    "empty.csv": (text(""), "empty.csv: is empty"),
    "blank.csv": (text("\n\n,,\n"), "blank.csv: is empty"),
    "header.csv": (text("a,b,label\n"), "has no rows below the header"),
    "word.csv": (text("0,1,y\n1,2,0\n1,x,1\n"), "row 3 has 'x' in '1', which is no number"),
    "no-header.csv": (
        text("1,2,0\n1,2,1\n"), "no columns called label or labels or target or y or y_true"
    ),
    "ragged.csv": (text("0,1,y\n\n1,2\n"), "row 3 has 2 cells, the header has 3"),
    "huge.csv": (text("logit_0,logit_1,y\n" + "1e999,2,0\n" * 30), "logits: "),
    "few.csv": (text("logit_0,logit_1,y\n" + "1,2,0\n" * 3), "at least 20"),
    "latin.csv": (text("é,b,label\n", "latin-1"), "no text in UTF-8"),
    "indexed.csv": (indexed, "index=False"),
    "species.csv": (text("a,b,species\n1,2,0\n"), "name one with --label"),
    "long.csv": (text("0,1,y\n1," + "x" * 1000 + ",0\n1,2,1\n"), f"row 2 has '{'x' * 40}' in"),
}  # fmt: skip


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


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        run("--version")
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"mcunc {mcunc.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [(), ("report",), ("report", "a.npz", "--bins", "many"), ("nonsense",)]
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
        "for arguments in (['--help'], ['report', 'a.npz']):\n"
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
    assert usage.startswith("usage: python -m mcunc [-h]")
    assert report.startswith(mcunc.report(LOGITS, LABELS).headline)
    assert report.endswith("Written to a-report.png\nstatus 0 False\n")
    assert result.stderr == ""
    assert Path("a-report.png").stat().st_size > 10_000
