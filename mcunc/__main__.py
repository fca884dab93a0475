"""Command line: ``python -m mcunc report FILE`` and ``python -m mcunc run NAME``."""

import argparse
import importlib
import sys
from pathlib import Path

import mcunc
from mcunc._internal.files import atomic_write
from mcunc._internal.tables import RULES, read_table

ABOUT = "Judge your own classifier, or repeat a recorded run of the book about uncertainty."
PAGES = (".png", ".pdf", ".svg")
SETS = ["yacht", "energy", "concrete", "wine-quality-red", "kin8nm", "power-plant"]
# Options of runs by the names of the functions' arguments.  What a run does not have is refused.
DEVICE = {"device": {"choices": ["cpu", "cuda"], "help": "where to train (default: cpu)"}}
BIRDS = {
    "arm": {
        "choices": ["standard", "head", "last", "everywhere"],
        "help": "where dropout is (default: standard, nowhere)",
    },
    "drop": {"type": float, "help": "probability of dropout (default: 0.2)"},
    "epochs": {"type": int, "help": "(default: those of the network)"},
    "size": {"type": int, "help": "pixels of a side (default: that of the network)"},
    "rate": {"type": float, "help": "learning rate (default: that of the network)"},
    "decay": {"type": float, "help": "weight decay (default: that of the network)"},
    "inner": {
        "action": "store_true",
        "help": "judge on part of the training cases, to choose settings",
    },
    "split": {"type": int, "help": "seed of the split alone (default: the seed)"},
}


def _network(*choices):
    return {"network": {"choices": choices, "help": "(default: efficientnet_lite0)"}}


RUNS = {  # name: function of `mcunc.runs`, options beside --seed and --folder
    "calibration": (
        "run_calibration",
        {
            "data": {
                "dest": "dataset", "choices": ["cifar10", "cifar100"], "help": "(default: cifar10)",
            },
        }
        | DEVICE,
    ),
    "trucks": ("run_trucks", DEVICE),
    "uci": (
        "run_uci",
        {
            "set": {"nargs": "+", "choices": SETS, "help": "(default: all six)"},
            "protocol": {
                "choices": ["original", "paper", "short", "rerun"], "help": "(default: paper)",
            },
        },
    ),
    "birds": (
        "run_birds",
        _network("efficientnet_lite0", "googlenet", "googlenet_imagenet") | BIRDS | DEVICE,
    ),
    "birds-tuning": ("run_tuning", _network("efficientnet_lite0", "googlenet") | DEVICE),
    "birds-repeated": (
        "run_repeated",
        _network("efficientnet_lite0", "googlenet", "googlenet-equal", "googlenet-96")
        | {"splits": {"type": int, "help": "how many (default: as many as the book has)"}}
        | DEVICE,
    ),
    "posterior": ("run_posterior", {}),
    "dropout-sisters": ("run_sisters", {}),
    "dropout-spread": ("run_spread", {}),
    "birdwatch-dropout": ("run_birdwatch", {}),
    "birds-pretrained": ("run_pretrained", {}),
    "birds-heads": ("run_heads", {}),
}  # fmt: skip
MODULES = {
    "run_calibration": "calibration_cifar", "run_trucks": "trucks", "run_uci": "uci",
    "run_birds": "birds", "run_pretrained": "birds", "run_tuning": "birds_sweep",
    "run_repeated": "birds_sweep", "run_posterior": "posterior_methods",
    "run_sisters": "dropout_sisters", "run_spread": "dropout_spread",
    "run_birdwatch": "birdwatch_dropout", "run_heads": "birds_probes",
}  # fmt: skip
SHARED = ("birds", "birds-tuning", "birds-repeated")  # that several processes may make together


def main(arguments=None):
    """Run one command; returns the exit status: 0, 2 for bad input, 130 when interrupted."""
    parser = _parser()
    given, unknown = parser.parse_known_args(arguments)
    if unknown:  # told with the usage of the command, not with that of all
        given.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
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


def _report(given):
    source = Path(given.file)
    target = Path(given.output or f"{source.stem}-report.png")
    if target.suffix.lower() not in PAGES:
        raise ValueError(f"--output: {target} must end in {', '.join(PAGES)}")
    if source.exists() and target.exists() and source.samefile(target):
        raise ValueError(f"--output: {target} is the file to be judged; name another")
    logits, labels, groups = read_table(source, given.label, given.logits, given.groups)
    found = mcunc.report(logits, labels, bins=given.bins, seed=given.seed, groups=groups)
    print(found, flush=True)  # before the page is drawn: nothing is lost if that fails
    _write(found, target)
    print(f"\nWritten to {target}")
    return 0


def _write(found, target):
    """Write the page; a file that is there stays whole until the end."""
    import matplotlib

    matplotlib.use("Agg")  # draws without a window
    page = found.page()
    try:
        with atomic_write(target) as part:
            page.savefig(part, format=target.suffix[1:].lower())
    finally:
        mcunc.plot.plt.close(page)


def _run(given):
    said = {key: value for key, value in vars(given).items() if key not in ("command", "parser")}
    name, seeds = said.pop("run"), said.pop("seed")
    if "drop" in said and said.get("arm", "standard") == "standard":
        given.parser.error("--drop: the standard network has no dropout; name another --arm")
    sets = [{"name": one} for one in said.pop("set", SETS)] if name == "uci" else [{}]
    from mcunc._internal import distributed  # needs torch, which the report does without

    # Processes that torchrun started meet once, not once for each seed.
    with distributed.joined(said.get("device", "cpu")) as device:
        if distributed.rank_and_world_size()[1] > 1 and name not in SHARED:
            raise ValueError(f"{name}: is made by one process; run it without torchrun")
        if "device" in RUNS[name][1]:
            said["device"] = device
        function = getattr(
            importlib.import_module(f"mcunc.runs.{MODULES[RUNS[name][0]]}"), RUNS[name][0]
        )
        for seed in seeds:
            for one in sets:
                print(function(**one, **said, seed=seed), flush=True)
    return 0


def _parser():
    parser = argparse.ArgumentParser(prog="python -m mcunc", description=ABOUT)
    parser.add_argument("--version", action="version", version=f"mcunc {mcunc.__version__}")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    report = commands.add_parser(
        "report",
        help="judge the calibration of your own classifier",
        epilog=RULES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("file", help=".npz, .csv or .tsv with logits and labels, see below")
    for name, kind in (
        ("label", "labels"),
        ("groups", "ids, the same for cases that belong together"),
    ):
        report.add_argument(f"--{name}", metavar="NAME", help=f"column or array of {kind}")
    report.add_argument("--logits", metavar="NAME", nargs="+", help="columns or array of logits")
    report.add_argument(
        "--bins", type=int, default=15, help="bins of the ECE, of equal width (default: 15)"
    )
    report.add_argument(
        "--seed", type=int, default=0, help="seed of the folds and the redraws (default: 0)"
    )
    report.add_argument(
        "--output", help="file for the page, .png, .pdf or .svg (default: FILE-report.png)"
    )
    report.set_defaults(parser=report)

    _add_runs(commands.add_parser("run", help="make a recorded run of the book again"))
    return parser


def _add_runs(run):
    runs = run.add_subparsers(dest="run", metavar="NAME", required=True)
    for name, (function, options) in RUNS.items():
        one = runs.add_parser(name, argument_default=argparse.SUPPRESS, help=f"{_flags(options)}")
        one.description = (
            f"The docstring of mcunc.runs.{MODULES[function]}.{function} says what the run does."
        )
        one.add_argument(
            "--seed", type=int, nargs="+", default=[0], help="make a run with each (default: 0)"
        )
        one.add_argument("--folder", help="where checkpoints and results go (default: runs)")
        for option, settings in options.items():
            one.add_argument(f"--{option}", **settings)
        one.set_defaults(parser=one)


def _flags(options):
    return " ".join(f"--{option}" for option in ("seed", "folder", *options))


if __name__ == "__main__":
    sys.exit(main())
