"""The package as a whole: importing, the layout, the direction of imports, budgets, docstrings."""

import ast
import doctest
import importlib
import inspect
import os
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mcunc

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mcunc"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# The floors of the house, from the ground up.  A module imports from lower floors and, without a
# circle, from its own.  A folder stands for every module in it.
FLOORS = {
    "shared": "_internal",
    "judging uncertainty, and what it is judged on": (
        "linear logistic calibration recalibration predictive selective ood conformal comparison "
        "data birdwatch recorded"
    ),
    "producing uncertainty": "networks training dropout posterior cam probes plot",
    "putting it together": "pretrained photograph reporting",
    "recorded runs": "runs",
    "command line": "__main__",
}
# numpy, scipy and nothing heavier
ARRAYS_ONLY = {
    *("linear", "logistic", "calibration", "recalibration", "predictive", "selective", "ood"),
    *("conformal", "comparison", "birdwatch", "recorded", "data.corruption"),
    *("_internal.checks", "_internal.files", "_internal.seeds", "_internal.deprecation"),
}
# What other modules of the package use, and readers need not know.
SHARED = {"dropout": {"MaskedDropout", "Masks", "check_draws"}}
NEEDS_DATA = {"RegressionSet", "cifar", "cub200", "uci"}
OLD_ADDRESSES = ["corruption", "experiments"]  # modules that only say where things are now
BUDGETS = {"birdwatch": 400, "runs": 1_300, "library": 4_500}  # lines of code
LONGEST_FUNCTION = 35  # lines of code
UNCLEAR = {"of", "found", "given", "said", "made", "told"}  # no names for what a value is


def dotted(path):
    """Name of a module below mcunc: ``data.images``; a folder's __init__ is the folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [name for name in PATHS if name and name not in OLD_ADDRESSES]
PUBLIC = sorted({name.partition(".")[0] for name in MODULES} - {"_internal", "runs", "__main__"})


@cache
def tree_of(name):
    return ast.parse(PATHS[name].read_text(encoding="utf-8"))


def run_python(code):
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


# Importing ------------------------------------------------------------------------------------


def test_import_is_light():
    loaded = run_python("import sys, mcunc; print(*sys.modules)")
    heavy = {"torch", "matplotlib", "scipy", "seaborn", "sklearn", "pandas"}
    assert "mcunc" in loaded
    assert not heavy & set(loaded)
    assert not [name for name in loaded if name.startswith("mcunc.")]


def test_numpy_modules_load_no_torch_and_no_matplotlib():
    """One process imports them one by one, and names each with what it brought in."""
    modules = sorted(name for name in ARRAYS_ONLY if "." not in name)
    heavy = {"torch", "matplotlib", "sklearn", "pandas"}
    found = run_python(f"""
import sys, mcunc
before = set()
for module in {modules}:
    getattr(mcunc, module)
    assert f"mcunc.{{module}}" in sys.modules, module
    print(*(f"{{module}}:{{name}}" for name in {heavy} & set(sys.modules) - before))
    before |= set(sys.modules)
""")
    assert found == []


def test_importing_everything_changes_no_setting():
    """Settings are read after the dependencies are in, so that only mcunc can change them."""
    modules = ", ".join(f"mcunc.{name}" for name in MODULES)
    run_python(f"""
import random, warnings
import matplotlib.pyplot, numpy, seaborn, sklearn.datasets, torch
import scipy.linalg, scipy.optimize, scipy.special, scipy.stats

def settings():
    return repr([
        dict(matplotlib.rcParams), warnings.filters, numpy.geterr(), numpy.get_printoptions(),
        numpy.random.get_state(), random.getstate(), torch.get_rng_state().tolist(),
        torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(), matplotlib.pyplot.get_fignums(),
    ])

numpy.set_printoptions(threshold=10**6)
before = settings()
import {modules}
assert settings() == before
""")


def test_submodules_are_listed_and_load():
    assert sorted(mcunc._SUBMODULES) == PUBLIC
    for name in mcunc._SUBMODULES:
        assert name in dir(mcunc)
        assert name in mcunc.__all__
        assert inspect.ismodule(getattr(mcunc, name))
    with pytest.raises(AttributeError, match="'mcunc' has no attribute 'nonsense'"):
        _ = mcunc.nonsense


@pytest.mark.parametrize("name", OLD_ADDRESSES)
def test_old_addresses_say_where_things_are_now(name):
    old = getattr(mcunc, name)
    places = inspect.getclosurevars(old.__getattr__).nonlocals["places"]
    for attribute, place in places.items():
        with pytest.warns(DeprecationWarning, match=f"mcunc.{name}.{attribute} is now mcunc."):
            value = getattr(old, attribute)
        home, _, new = place.rpartition(".")
        assert value is getattr(importlib.import_module(f"mcunc.{home}"), new)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = old.nonsense


def test_editors_see_what_is_loaded_on_first_use():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }  # fmt: skip
    assert seen == {
        **{name: f"mcunc.{name}" for name in PUBLIC}, "report": "mcunc.reporting.report",
    }  # fmt: skip
    (listed,) = (n.value for n in stub.body if isinstance(n, ast.Assign))
    assert sorted(ast.literal_eval(listed)) == sorted(mcunc.__all__)
    jedi = pytest.importorskip("jedi")  # what IPython and several editors complete with
    names = {c.name for c in jedi.Script("import mcunc\nmcunc.").complete(2, 6)}
    assert {*PUBLIC, "report"} <= names


def test_version_is_the_one_of_pyproject():
    assert mcunc.__version__ == PYPROJECT["project"]["version"]


# The layout ------------------------------------------------------------------------------------


def floor_of(name):
    """Number of a module's floor."""
    for number, rooms in enumerate(FLOORS.values()):
        if name.partition(".")[0] in rooms.split():
            return number
    raise AssertionError(f"mcunc/{name.replace('.', '/')}.py: on which floor is it? See FLOORS")


def imports_of(name):
    """Every name imported anywhere in a module, functions included; of mcunc without "mcunc."."""
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module
            if node.module.partition(".")[0] == "mcunc":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_used(name):
    """Modules of mcunc that a module imports."""
    names = {full.removeprefix("mcunc.") for full in imports_of(name) if full.startswith("mcunc.")}
    return (names & set(MODULES)) - {name}


def test_no_floor_is_listed_that_is_not_there():
    rooms = " ".join(FLOORS.values()).split()
    assert sorted(rooms) == sorted({name.partition(".")[0] for name in MODULES})


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_downward(name):
    for other in modules_used(name):
        assert floor_of(other) <= floor_of(name), f"{name} imports {other} from a floor above"
    if name in ARRAYS_ONLY or name.partition(".")[0] in ARRAYS_ONLY:
        for full in imports_of(name):
            top = full.partition(".")[0]
            allowed = {"numpy", "scipy", "mcunc"} | sys.stdlib_module_names
            assert top in allowed, f"{name} imports {full}"


def test_imports_make_no_circle():
    folder = {name for name in PATHS if PATHS[name].name == "__init__.py"}  # they only re-export
    graph = {name: modules_used(name) - folder for name in MODULES if name not in folder}
    tuple(TopologicalSorter(graph).static_order())  # a CycleError names the circle


def test_plot_computes_nothing_of_the_package():
    assert not modules_used("plot")


def test_seaborn_is_imported_only_where_it_draws():
    for name in MODULES:
        at_top = {
            alias.name
            for node in tree_of(name).body if isinstance(node, ast.Import) for alias in node.names
        }  # fmt: skip
        assert "seaborn" not in at_top, name


def test_tests_mirror_the_package():
    """Each module has its tests where its name says, and each file of tests its module."""
    missing = [
        name for name, path in PATHS.items()
        if name and path.name != "__init__.py" and name not in OLD_ADDRESSES
        and not (ROOT / "tests" / path.relative_to(PACKAGE).parent
                 / f"test_{path.stem.strip('_')}.py").is_file()
    ]  # fmt: skip
    assert missing == []
    of_the_whole = {"test_package", "test_repository", "test_gpu", "test_dataclasses", "test_scale"}
    stray = [
        str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if path.parent.name != "book" and path.stem not in of_the_whole
        and dotted(PACKAGE / path.relative_to(ROOT / "tests").parent
                   / f"{path.stem.removeprefix('test_')}.py") not in PATHS
        and path.stem != "test_main"
    ]  # fmt: skip
    assert stray == []


# Budgets --------------------------------------------------------------------------------------


def docstring_lines(tree):
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        text = getattr(getattr(first, "value", None), "value", None)
        if isinstance(first, ast.Expr) and isinstance(text, str):
            yield from range(first.lineno, first.end_lineno + 1)


@cache
def code_lines(name):
    """Numbers of a module's lines of code: no docstrings, comments or blank lines."""
    lines = PATHS[name].read_text(encoding="utf-8").splitlines()
    skipped = set(docstring_lines(tree_of(name)))
    return [
        i for i, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#") and i not in skipped
    ]  # fmt: skip


@pytest.mark.parametrize("part", BUDGETS)
def test_the_package_is_small_enough_to_read(part):
    sizes = {name: len(code_lines(name)) for name in PATHS}
    own = {
        name: size for name, size in sizes.items()
        if (name.partition(".")[0] if name.partition(".")[0] in BUDGETS else "library") == part
    }  # fmt: skip
    largest = sorted(own.items(), key=lambda item: -item[1])[:5]
    assert sum(own.values()) <= BUDGETS[part], f"{sum(own.values())} lines; largest: {largest}"


@pytest.mark.parametrize("name", MODULES)
def test_a_function_fits_on_a_screen(name):
    lines = code_lines(name)
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.FunctionDef):
            size = sum(node.lineno <= i <= node.end_lineno for i in lines)
            assert size <= LONGEST_FUNCTION, f"{node.name} has {size} lines"


@pytest.mark.parametrize("name", MODULES)
def test_names_say_what_a_value_is(name):
    for node in ast.walk(tree_of(name)):
        used = {
            ast.Name: lambda n: n.id, ast.arg: lambda n: n.arg,
            ast.Attribute: lambda n: n.attr, ast.FunctionDef: lambda n: n.name,
        }.get(type(node), lambda n: "")(node)  # fmt: skip
        assert used not in UNCLEAR, f"line {node.lineno}: {used}"


# Docstrings -----------------------------------------------------------------------------------


def public_names():
    """Yield module and name of everything that a public module lists."""
    for module in [*PUBLIC, "data.corruption"]:
        for name in getattr(importlib.import_module(f"mcunc.{module}"), "__all__", ()):
            yield module, name


def functions_and_classes():
    for module, name in public_names():
        value = getattr(importlib.import_module(f"mcunc.{module}"), name)
        if callable(value):
            yield pytest.param(value, id=f"{module}.{name}")


@pytest.mark.parametrize("module", [*PUBLIC, "data.corruption"])
def test_the_public_names_are_those_that_are_listed(module):
    """A function or class without underscore is public, so that nothing is public by accident."""
    loaded = importlib.import_module(f"mcunc.{module}")
    assert len(set(loaded.__all__)) == len(loaded.__all__)
    assert not [name for name in loaded.__all__ if not hasattr(loaded, name)]
    defined = {
        name for name, value in vars(loaded).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == loaded.__name__
        and (inspect.isfunction(value) or inspect.isclass(value))
    }  # fmt: skip
    assert defined <= set(loaded.__all__) | SHARED.get(module, set())


def members(value):
    yield value
    if inspect.isclass(value) and value.__module__.startswith("mcunc"):
        for name, attribute in vars(value).items():
            if not name.startswith("_") and isinstance(attribute, property | type(members)):
                yield attribute


@pytest.mark.parametrize("value", list(functions_and_classes()))
def test_everything_public_has_a_docstring(value):
    for member in members(value):
        text = inspect.getdoc(member) or ""
        automatic = inspect.isclass(member) and text.startswith(f"{member.__name__}(")
        assert len(text.split()) > 1, member
        assert not automatic, member
        assert text.split("\n\n")[0].endswith((".", ":")), f"{member}: no sentence at the start"


@pytest.mark.parametrize("value", list(functions_and_classes()))
def test_everything_public_has_an_example_that_runs(value):
    module = importlib.import_module(value.__module__)
    if value.__name__ in NEEDS_DATA and "MCUNC_DATA" not in os.environ:
        pytest.skip("needs a data set, and MCUNC_DATA to say where it is")
    (test,) = doctest.DocTestFinder(recurse=False).find(value, value.__name__, module, globs={})
    assert test.examples, "no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    lines = []
    failures, _ = runner.run(test, out=lines.append)
    assert not failures, "".join(lines)
