"""The command line: results on stdout, one line on stderr for what is wrong, nothing lost."""

import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from test_reporting import world

import mcunc
from mcunc import experiments
from mcunc.__main__ import main, read_logits


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with mpl.rc_context():  # the command sets the book's style
        yield
    plt.close("all")


@pytest.fixture
def npz(tmp_path):
    logits, labels = world(n=200, claim=2)
    np.savez(tmp_path / "mine.npz", logits=logits, labels=labels)
    return "mine.npz"


def csv(path, header=None, label=-1):
    logits, labels = world(n=200, claim=2)
    columns = list(logits.T.astype(str))
    columns.insert(len(columns) if label == -1 else label, labels.astype(str))
    lines = [",".join(row) for row in zip(*columns, strict=True)]
    path.write_text("\n".join(([header] if header else []) + lines) + "\n", encoding="utf-8")
    return str(path)


def test_report_prints_the_text_and_writes_the_page(npz, capsys, tmp_path):
    assert main(["report", npz]) == 0
    printed = capsys.readouterr().out
    assert str(mcunc.report(*world(n=200, claim=2))) in printed
    assert (tmp_path / "mine-report.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine-report.png", "mine.npz"]


@pytest.mark.parametrize(
    ("header", "label"),
    [
        (None, -1),
        ("a,b,c,d,label", -1),
        ("\ufeffa,b,c,d,y", -1),
        ("label,a,b,c,d", 0),
        ("a,b,Labels,c,d", 2),
        ("0,1,label,2,3", 2),
    ],
)
def test_csv_says_what_npz_says(npz, tmp_path, header, label):
    logits, labels = read_logits(csv(tmp_path / "mine.csv", header, label))
    np.testing.assert_array_equal(logits, np.load(npz)["logits"])
    np.testing.assert_array_equal(labels, np.load(npz)["labels"])


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_other_kinds_of_pages(npz, tmp_path, kind):
    assert main(["report", npz, "--output", f"page.{kind}", "--bins", "10"]) == 0
    assert (tmp_path / f"page.{kind}").stat().st_size > 1000


class Evil:
    """Unpickling this would print."""

    def __reduce__(self):
        return print, ("executed",)


def write_bad(path, kind):
    logits, labels = world(n=50)
    if kind == "no labels":
        np.savez(path, logits=logits, other=labels)
    elif kind == "objects":
        np.savez(path, logits=np.array([Evil()] * 30, dtype=object), labels=labels)
    elif kind == "cut short":
        np.savez(path, logits=logits, labels=labels)
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "one array":
        with path.open("wb") as file:
            np.save(file, logits)
    elif kind == "too few":
        np.savez(path, logits=logits[:5], labels=labels[:5])
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no labels", "has no labels; it has logits, other"),
        ("objects", "allow_pickle"),
        ("cut short", "bad.npz"),
        ("one array", "single array"),
        ("too few", "labels: 5 cases are too few"),
        ("empty", "bad.npz"),
    ],
)
def test_bad_archives(tmp_path, capsys, kind, message):
    write_bad(tmp_path / "bad.npz", kind)
    assert main(["report", "bad.npz"]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert "executed" not in out + err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b,label\n", "expected rows"),
        ("1,2,0\n1,x,0\n", "row 2 has 'x'"),
        ("a,b,label\n1,2,0\n1,2\n", "row 3 has 2 cells, not 3"),
        ("1,0\n2,1\n", "at least two logits"),
        ("1,nan,0\n" * 30, "logits: contains NaN"),
        ("1,2,0.5\n" * 30, "labels: "),
        ("1,2,7\n" * 30, "labels: "),
    ],
)
def test_bad_tables(tmp_path, capsys, text, message):
    (tmp_path / "bad.csv").write_text(text, encoding="utf-8")
    assert main(["report", "bad.csv"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_other_files(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("1,2,0")
    (tmp_path / "folder.csv").mkdir()
    for name in ("mine.txt", "missing.npz", "missing.csv", "folder.csv"):
        assert main(["report", name]) == 2
        assert name in capsys.readouterr().err


def test_the_text_is_printed_where_the_page_cannot_be_written(npz, capsys):
    assert main(["report", npz, "--output", "nowhere/page.png"]) == 2
    out, err = capsys.readouterr()
    assert "Calibration of 200 cases" in out
    assert "nowhere" in err


def test_the_input_cannot_be_overwritten(npz, capsys, tmp_path):
    before = (tmp_path / npz).read_bytes()
    assert main(["report", npz, "--output", npz]) == 2
    assert "--output" in capsys.readouterr().err
    assert (tmp_path / npz).read_bytes() == before


def test_an_old_page_stays_until_the_new_one_is_whole(npz, tmp_path, monkeypatch):
    page = tmp_path / "mine-report.png"
    page.write_text("old")

    def fails(self, path, **_):
        open(path, "w").close()
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fails)
    assert main(["report", npz]) == 2
    assert page.read_text() == "old"


@pytest.mark.parametrize("option", [["--bins", "0"], ["--seed", "-1"]])
def test_options_are_checked(npz, capsys, option):
    assert main(["report", npz, *option]) == 2
    assert option[0].strip("-") in capsys.readouterr().err


def test_run_calls_the_experiment_for_each_seed(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(experiments, "run_calibration", lambda *given: calls.append(given) or "x")
    assert main(["run", "calibration", "--data", "cifar100", "--seed", "3", "5"]) == 0
    assert calls == [("cifar100", 3, "runs", "cpu"), ("cifar100", 5, "runs", "cpu")]
    assert capsys.readouterr().out == "x\nx\n"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(FileNotFoundError("no data"), 2, "no data"), (KeyboardInterrupt(), 130, "goes on from")],
)
def test_a_run_that_stops_says_so(monkeypatch, capsys, error, status, message):
    def stops(*_):
        raise error

    monkeypatch.setattr(experiments, "run_calibration", stops)
    assert main(["run", "calibration"]) == status
    assert message in capsys.readouterr().err


def test_without_a_command_there_is_help(capsys):
    assert main([]) == 0
    assert "report" in capsys.readouterr().out
    for wrong in (["nonsense"], ["run", "nonsense"], ["report"]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)


def test_from_a_shell(npz, tmp_path):
    command = [sys.executable, "-m", "mcunc", "report", npz]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "Calibration of 200 cases" in result.stdout
    assert result.stderr == ""
    version = subprocess.run(
        [*command[:3], "--version"], capture_output=True, text=True, check=True
    )
    assert version.stdout.strip() == mcunc.__version__
