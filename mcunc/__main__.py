"""Command line: ``python -m mcunc report FILE`` and ``python -m mcunc run NAME``."""

import argparse
import sys
from pathlib import Path

import mcunc
from mcunc._internal.files import atomic_write
from mcunc._internal.tables import RULES, read_table

ABOUT = "Judge your own classifier, or repeat a recorded run of the book about uncertainty."
PAGES = (".png", ".pdf", ".svg")


def main(arguments=None):
    """Run one command; returns the exit status: 0, 2 for bad input, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    running = arguments[:1] == ["run"]
    parser = _parser(running)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # reported with the usage of the command, not with that of all
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options = vars(options)
    function = [options.pop(key) for key in ("command", "parser", "function")][-1]
    try:
        function(**options)
    except (ValueError, OSError, ImportError) as error:
        print("mcunc:", *str(error).split(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumes = "; the same command goes on from the last part that was kept" if running else ""
        print(f"mcunc: interrupted{resumes}", file=sys.stderr)
        return 130
    return 0


def _report(file, label, logits, groups, bins, seed, output):
    target = Path(output or f"{Path(file).stem}-report.png")
    if target.suffix.lower() not in PAGES:
        raise ValueError(f"--output: {target} must end in {', '.join(PAGES)}")
    logits, labels, groups = read_table(file, label, logits, groups)
    report = mcunc.report(logits, labels, bins=bins, seed=seed, groups=groups)
    print(report, flush=True)  # before the page is drawn: nothing is lost if that fails
    _write(report, target)
    print(f"\nWritten to {target}")


def _write(report, target):
    """Write the page; a file that is there stays whole until the end."""
    page = report.page()
    with atomic_write(target) as part:
        page.savefig(part, format=target.suffix[1:].lower())


def _parser(running):
    """The parser of the command line; with the runs, whose modules need torch, if one is named."""
    parser = argparse.ArgumentParser(prog="python -m mcunc", description=ABOUT)
    parser.add_argument("--version", action="version", version=f"mcunc {mcunc.__version__}")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_report(commands)
    run = commands.add_parser("run", help="make a recorded run of the book again")
    if running:
        from mcunc.runs import cli

        cli.add_parsers(run)
    return parser


def _add_report(commands):
    report = commands.add_parser(
        "report",
        help="judge the calibration of your own classifier",
        epilog=RULES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("file", help=".npz, .csv or .tsv with logits and labels, see below")
    report.add_argument("--label", metavar="NAME", help="column or array of labels")
    report.add_argument("--groups", metavar="NAME", help="ids of cases that belong together")
    report.add_argument("--logits", metavar="NAME", nargs="+", help="columns or array of logits")
    report.add_argument("--bins", type=int, default=15, help="bins of the ECE (default: 15)")
    report.add_argument("--seed", type=int, default=0, help="of folds and redraws (default: 0)")
    report.add_argument("--output", help=".png, .pdf or .svg file (default: FILE-report.png)")
    report.set_defaults(parser=report, function=_report)


if __name__ == "__main__":
    sys.exit(main())
