"""``python -m mcunc run NAME``: the commands that the modules of this folder declare.

The options of a run stand in its own file, above the function that makes it.
"""

import argparse
from importlib import import_module
from itertools import product
from pkgutil import iter_modules

from mcunc import runs
from mcunc._internal import distributed
from mcunc.runs.common import COMMANDS, option

for _module in iter_modules(runs.__path__):  # which declares its commands
    import_module(f"{runs.__name__}.{_module.name}")

SHARED = (  # what every run takes
    option("--seed", type=int, nargs="+", default=[0], help="make a run with each (default: 0)"),
    option("--folder", help="where checkpoints and results go (default: runs)"),
)


def add_parsers(parser):
    """Give the parser of ``run`` a parser for each run, with the options that it takes."""
    parsers = parser.add_subparsers(dest="run", metavar="NAME", required=True)
    for name, command in COMMANDS.items():
        summary = command.function.__doc__.partition("\n")[0]
        one = parsers.add_parser(
            name, argument_default=argparse.SUPPRESS, help=summary, description=summary
        )
        for flags, settings in (*SHARED, *command.options):
            one.add_argument(*flags, **settings)
        one.set_defaults(parser=one, function=make)


def make(run, **options):
    """Make a run, once for each value of an option that may have several.

    Processes that ``torchrun`` started meet once, not once for each run.
    """
    command = COMMANDS[run]
    with distributed.joined(options.get("device", "cpu")) as device:
        if distributed.rank_and_world_size()[1] > 1 and not command.together:
            raise ValueError(f"{run}: is made by one process; run it without torchrun")
        if any("--device" in flags for flags, _ in command.options):
            options["device"] = device
        several = {key: value for key, value in options.items() if isinstance(value, list)}
        for values in product(*several.values()):
            path = command.function(**options | dict(zip(several, values, strict=True)))
            print(path, flush=True)
