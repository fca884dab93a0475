"""Command line: ``python -m mcunc report FILE`` and ``python -m mcunc run NAME``."""

import argparse
import csv
import sys
import zipfile
from pathlib import Path

import numpy as np

import mcunc


def main(arguments=None):
    """Run one command; returns the exit status: 0, 2 for bad input, 130 when interrupted."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 0
    try:
        return {"report": _report, "run": _run}[given.command](given)
    except (ValueError, OSError) as error:
        print(f"mcunc: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mcunc: interrupted; the same command goes on from there", file=sys.stderr)
        return 130


def read_logits(path):
    """Logits and labels of a file.

    Parameters
    ----------
    path : Path
        An .npz file with arrays `logits` (N, K) and `labels` (N,), or a .csv file with K columns
        of logits and one of labels: the one headed "label" or "labels", or else the last.

    Returns
    -------
    logits : (N, K) array
    labels : (N,) array

    Raises
    ------
    ValueError
        For another kind of file, or one without these contents.
    OSError
        Where the file cannot be read.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".csv":
        return _read_csv(path)
    raise ValueError(f"{path}: expected an .npz or a .csv file")


def _read_npz(path):
    with path.open("rb") as stream:  # np.load would leave a damaged file open
        try:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("is a single array; expected an archive of logits and labels")
            missing = {"logits", "labels"} - set(file.files)
            if missing:
                there = ", ".join(file.files) or "nothing"
                raise ValueError(f"has no {' and no '.join(sorted(missing))}; it has {there}")
            return file["logits"], file["labels"]
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: {error}") from None


def _read_csv(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), 1) if row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: {error}") from None
    if not rows:
        raise ValueError(f"{path}: is empty")
    header = [cell.strip().lower() for cell in rows[0][1]]
    named = [i for i, cell in enumerate(header) if cell in ("label", "labels")]
    if not all(map(_is_number, header)):
        rows = rows[1:]
    values = []
    for number, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}: row {number} has {len(row)} cells, not {len(header)}")
        bad = [cell for cell in row if not _is_number(cell)]
        if bad:
            raise ValueError(f"{path}: row {number} has {bad[0]!r}, which is no number")
        values.append([float(cell) for cell in row])
    if not values or len(header) < 3:
        raise ValueError(f"{path}: expected rows of at least two logits and a label")
    table = np.array(values)
    place = named[0] if named else len(header) - 1
    return np.delete(table, place, axis=1), table[:, place]


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _report(given):
    source = Path(given.file)
    target = Path(given.output or f"{source.stem}-report.png")
    if target.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--output: {target} must end in .png, .pdf or .svg")
    found = mcunc.report(*read_logits(source), bins=given.bins, seed=given.seed)
    print(found, flush=True)  # before the page is drawn: nothing is lost if that fails
    import matplotlib

    matplotlib.use("Agg")
    mcunc.plot.use_style()
    part = target.with_name(f"{target.stem}.part{target.suffix}")
    found.page().savefig(part)
    part.replace(target)
    print(f"\nWritten to {target}")
    return 0


def _run(given):
    for seed in given.seed:
        print(mcunc.experiments.run_calibration(given.data, seed, given.folder, given.device))
    return 0


def _parser():
    parser = argparse.ArgumentParser(prog="python -m mcunc", description=mcunc.__doc__)
    parser.add_argument("--version", action="version", version=mcunc.__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    report = commands.add_parser("report", help="judge the calibration of your own classifier")
    report.add_argument("file", help=".npz with logits and labels, or .csv with the label last")
    report.add_argument("--bins", type=int, default=15)
    report.add_argument("--seed", type=int, default=0, help="of the folds and the redraws")
    report.add_argument("--output", help="the page: .png (default: FILE-report.png), .pdf or .svg")

    run = commands.add_parser("run", help="make a recorded run of the book again")
    run.add_argument("name", choices=["calibration"])
    run.add_argument("--data", choices=["cifar10", "cifar100"], default="cifar10")
    run.add_argument("--seed", type=int, nargs="+", default=[0])
    run.add_argument("--folder", default="runs", help="checkpoints and results (default: runs)")
    run.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    return parser


if __name__ == "__main__":
    sys.exit(main())
