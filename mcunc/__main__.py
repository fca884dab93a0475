"""Command line: ``python -m mcunc report FILE`` and ``python -m mcunc run NAME``."""

import argparse
import csv
import os
import sys
from pathlib import Path

import numpy as np

import mcunc

PAGES = (".png", ".pdf", ".svg")
ARRAYS = ("logits", "labels")
LABELS = ("label", "labels")
SETS = ["yacht", "energy", "concrete", "wine-quality-red", "kin8nm", "power-plant"]
# Runs that several processes may make together.
SHARED = ("birds", "birds-tuning", "birds-repeated")
RUNS = {  # beside "calibration", "birds" and "uci", which have choices of their own, and "trucks"
    "posterior": "run_posterior",
    "dropout-sisters": "run_sisters",
    "dropout-spread": "run_spread",
    "birdwatch-dropout": "run_birdwatch",
    "birds-pretrained": "run_pretrained",
    "birds-heads": "run_heads",
}


def main(arguments=None):
    """Run one command; returns the exit status: 0, 2 for bad input, 130 when interrupted."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 0
    try:
        return {"report": _report, "run": _run}[given.command](given)
    except (ValueError, OSError, ImportError) as error:
        line = " ".join(str(error).split())
        print(f"mcunc: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumes = "; the same command goes on from there" if given.command == "run" else ""
        print(f"mcunc: interrupted{resumes}", file=sys.stderr)
        return 130


def read_logits(path):
    """Logits and labels of a file.

    Parameters
    ----------
    path : str or Path
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
    readers = {".npz": _read_npz, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: expected an .npz or a .csv file")
    try:
        return readers[path.suffix.lower()](path)
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is no text in UTF-8; save it as such") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None


def _read_npz(path):
    with path.open("rb") as stream:
        try:
            file = np.load(stream, allow_pickle=False)
            there = file.files if isinstance(file, np.lib.npyio.NpzFile) else None
            arrays = {name: file[name] for name in ARRAYS if name in (there or ())}
        except Exception as error:  # the zip and zlib modules have many, all for damaged files
            why = "it holds Python objects, or something else" if "pickle" in str(error) else error
            raise ValueError(f"is no sound .npz file of numbers ({why})") from None
    if there is None:
        raise ValueError("holds a single array; write np.savez(file, logits=…, labels=…)")
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        names = ", ".join(there) or "nothing"
        raise ValueError(f"has no array {' and no '.join(missing)}; it has {names}")
    return arrays["logits"], arrays["labels"]


def _read_csv(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        rows = ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))
        number, first = next(rows, (0, []))
        if not first:
            raise ValueError("is empty")
        if len(first) < 3:
            raise ValueError(
                f"row {number} has {len(first)} cells; expected at least two logits and a label, "
                "with commas between"
            )
        place = _label_column(first)
        start = [] if _is_header(first) else [_numbers(number, first, len(first))]
        table = np.array(start + [_numbers(number, row, len(first)) for number, row in rows])
    if not len(table):
        raise ValueError("has a header and no rows")
    return np.delete(table, place, axis=1), table[:, place]


def _is_header(row):
    """Whether the first row holds names: one says label, or none is a number."""
    named = any(cell.strip().lower() in LABELS for cell in row)
    return named or not any(map(_is_number, row))


def _label_column(header):
    """Index of the column of labels."""
    names = [cell.strip().lower() for cell in header]
    found = [i for i, name in enumerate(names) if name in LABELS]
    if len(found) > 1:
        raise ValueError("has two columns of labels; keep one")
    if _is_header(header) and names[0] in ("", "unnamed: 0"):
        raise ValueError(
            "its first column has no name, as a table's index has not; write the file without it "
            "(pandas: index=False)"
        )
    return found[0] if found else len(header) - 1


def _numbers(number, row, length):
    """The cells of a row of the file as numbers."""
    if len(row) != length:
        raise ValueError(f"row {number} has {len(row)} cells, the first row has {length}")
    try:
        return np.fromiter(map(float, row), dtype=float, count=length)
    except ValueError:
        bad = next(cell for cell in row if not _is_number(cell))
        hint = "; if it is a header, name the column of labels label" if number == 1 else ""
        raise ValueError(f"row {number} has {bad[:40]!r}, which is no number{hint}") from None


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _report(given):
    source = Path(given.file)
    target = Path(given.output or f"{source.stem}-report.png")
    if target.suffix.lower() not in PAGES:
        raise ValueError(f"--output: {target} must end in {', '.join(PAGES)}")
    if source.exists() and target.exists() and source.samefile(target):
        raise ValueError(f"--output: {target} is the file to be judged; name another")
    logits, labels = read_logits(source)
    found = mcunc.report(logits, labels, bins=given.bins, seed=given.seed)
    print(found, flush=True)  # before the page is drawn: nothing is lost if that fails
    try:
        _write(found, target)
    except OSError as error:
        raise OSError(f"--output: {target} cannot be written ({error.strerror or error})") from None
    print(f"\nWritten to {target}")
    return 0


def _write(found, target):
    """Write the page under another name first: a file that is there stays whole until the end."""
    import matplotlib

    matplotlib.use("Agg")  # draws without a window
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    page = found.page()
    try:
        page.savefig(part, format=target.suffix[1:].lower())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
        mcunc.plot.plt.close(page)


def _run(given):
    from mcunc import _parallel  # needs torch, which the report does without

    # Processes that torchrun started meet once, not once for each seed.
    with _parallel.joined(given.device) as device:
        if _parallel.place()[1] > 1 and given.name not in SHARED:
            raise ValueError(f"{given.name}: is made by one process; run it without torchrun")
        for seed in given.seed:
            print(_one_run(given, seed, device), flush=True)
    return 0


def _one_run(given, seed, device):
    runs = mcunc.experiments
    if given.name == "calibration":
        return runs.run_calibration(given.data, seed, given.folder, device)
    if given.name == "birds":
        return runs.run_birds(
            given.network, given.arm, given.drop, given.epochs, given.size, given.rate,
            given.decay, given.inner, seed, given.folder, device, given.split,
        )  # fmt: skip
    if given.name == "birds-tuning":
        return runs.run_tuning(given.network, seed, given.folder, device)
    if given.name == "birds-repeated":
        return runs.run_repeated(given.network, given.splits, seed, given.folder, device)
    if given.name == "trucks":
        return runs.run_trucks(seed, given.folder, device)
    if given.name == "uci":
        made = (runs.run_uci(name, given.protocol, seed, given.folder) for name in given.set)
        return "\n".join(map(str, made))
    return getattr(runs, RUNS[given.name])(seed, given.folder)


def _parser():
    parser = argparse.ArgumentParser(prog="python -m mcunc", description=mcunc.__doc__)
    parser.add_argument("--version", action="version", version=f"mcunc {mcunc.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    report = commands.add_parser("report", help="judge the calibration of your own classifier")
    report.add_argument("file", help=".npz with logits and labels, or .csv with the label last")
    report.add_argument("--bins", type=int, default=15, help="of equal width (default: 15)")
    report.add_argument("--seed", type=int, default=0, help="of the folds and the redraws")
    report.add_argument(
        "--output", help="the page: .png (default: FILE-report.png in this folder), .pdf or .svg"
    )

    run = commands.add_parser("run", help="make a recorded run of the book again")
    run.add_argument("name", choices=["calibration", "trucks", "uci", *SHARED, *RUNS])
    run.add_argument("--data", choices=["cifar10", "cifar100"], default="cifar10")
    run.add_argument("--seed", type=int, nargs="+", default=[0], help="one run for each")
    run.add_argument("--folder", default="runs", help="checkpoints and results (default: runs)")
    run.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    birds = run.add_argument_group("of birds alone")
    birds.add_argument(
        "--network",
        default="efficientnet_lite0",
        help="or googlenet, …_imagenet, and for birds-repeated …-equal, …-96",
    )
    birds.add_argument("--arm", default="standard", help="or head, last, everywhere: dropout")
    birds.add_argument("--drop", type=float, default=0.2, help="probability (default: 0.2)")
    birds.add_argument("--epochs", type=int, help="(default: that of the network)")
    birds.add_argument("--size", type=int, help="pixels (default: that of the network)")
    birds.add_argument("--rate", type=float, help="of learning (default: that of the network)")
    birds.add_argument("--decay", type=float, help="of weights (default: that of the network)")
    birds.add_argument(
        "--inner", action="store_true", help="choose settings: leave the tenth alone"
    )
    birds.add_argument("--split", type=int, help="seed of the split alone (default: the seed)")
    birds.add_argument("--splits", type=int, help="of birds-repeated (default: its own)")
    uci = run.add_argument_group("of uci alone")
    uci.add_argument("--set", nargs="+", default=SETS, metavar="SET", help="(default: all six)")
    uci.add_argument(
        "--protocol", default="paper", help="(default: paper) or original, short, rerun"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
