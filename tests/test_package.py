"""The package and the repository around it: imports, layers, docstrings, pins, addresses."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import mcunc

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES = sorted(path.stem for path in (ROOT / "mcunc").glob("*.py") if path.stem != "__init__")
# Imports run downward: a module may use those before it.
ORDER = [
    *(
        "_checks",
        "_files",
        "_streams",
        "_download",
        "_archives",
        "_tables",
        "_cifar",
        "_photographs",
        "_regression",
        "linear",
        "logistic",
        "calibration",
        "predictive",
        "recalibration",
        "selective",
        "ood",
        "conformal",
        "comparison",
    ),
    *(
        "corruption",
        "recorded",
        "birdwatch",
        "data",
        "_inputs",
        "networks",
        "posterior",
        "_parallel",
        "_checkpoint",
        "training",
        "_replay",
    ),
    *(
        "dropout",
        "cam",
        "photograph",
        "plot",
        "reporting",
        "_cifar_run",
        "_sisters_run",
        "_spread",
        "_birdwatch_run",
        "_heads_run",
        "_changes",
        "_birds_run",
        "_birds_trials",
        "_uci_run",
        "_posterior_run",
        "_trucks_run",
        "experiments",
        "__main__",
    ),
]
# numpy, scipy and nothing heavier
ARRAYS_ONLY = {
    *(
        "_checks",
        "_files",
        "linear",
        "logistic",
        "calibration",
        "predictive",
        "recalibration",
        "corruption",
    ),
    *("recorded", "birdwatch", "selective", "ood", "conformal", "comparison"),
}
PUBLIC = [name for name in ORDER if not name.startswith("_")]


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
    modules = sorted(ARRAYS_ONLY & set(PUBLIC))
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
    assert sorted(mcunc._SUBMODULES) == sorted(PUBLIC)
    for name in mcunc._SUBMODULES:
        assert name in dir(mcunc)
        assert name in mcunc.__all__
        assert inspect.ismodule(getattr(mcunc, name))
    with pytest.raises(AttributeError, match="'mcunc' has no attribute 'nonsense'"):
        _ = mcunc.nonsense


def test_version_is_the_one_of_pyproject():
    assert mcunc.__version__ == PYPROJECT["project"]["version"]


# Layers and docstrings ------------------------------------------------------------------------


def imports_of(module):
    """Every module name imported anywhere in the file, functions included."""
    tree = ast.parse((ROOT / "mcunc" / f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            if node.module == "mcunc":
                yield from (f"mcunc.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_every_module_has_a_place_in_the_layers():
    assert sorted(ORDER) == MODULES


@pytest.mark.parametrize("module", ORDER)
def test_imports_run_downward(module):
    below = set(ORDER[: ORDER.index(module)])
    for name in imports_of(module):
        top, _, rest = name.partition(".")
        if top == "mcunc":
            # The command line takes its modules from the package itself, on first use.
            allowed = rest.partition(".")[0] in below or (module, name) == ("__main__", "mcunc")
            assert allowed, f"{module} imports {name}"
        elif module in ARRAYS_ONLY:
            assert top in {"numpy", "scipy"} | sys.stdlib_module_names, f"{module} imports {name}"


def test_plot_computes_nothing_of_the_package():
    assert not [name for name in imports_of("plot") if name.startswith("mcunc")]


def public_objects():
    for module_name in ORDER:
        module = importlib.import_module(f"mcunc.{module_name}")
        yield module.__name__, module
        for name, value in vars(module).items():
            ours = getattr(value, "__module__", None) == module.__name__
            if name.startswith("_") or not ours or not callable(value):
                continue
            yield f"{module_name}.{name}", value
            if inspect.isclass(value):
                for member, attribute in vars(value).items():
                    if not member.startswith("_") and (
                        inspect.isfunction(attribute) or isinstance(attribute, property)
                    ):
                        yield f"{module_name}.{name}.{member}", attribute


def test_everything_public_has_a_docstring():
    objects = dict(public_objects())
    assert {"linear.fit_least_squares", "linear.LinearFit.interval"} <= set(objects)
    for name, value in objects.items():
        doc = inspect.getdoc(value) or ""
        automatic = inspect.isclass(value) and doc.startswith(f"{value.__name__}(")  # a dataclass's
        assert len(doc.split()) > 1, name
        assert not automatic, name
        assert doc.split("\n\n")[0].endswith((".", ":")), f"{name}: no sentence at the start"


# Pins -----------------------------------------------------------------------------------------

PLATFORMS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": system,
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for python in ("3.11", "3.12", "3.13")
    for system in ("linux", "darwin", "win32")
]


def lock_lines():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


def locked(platform):
    """Name to version of what the lock installs on a platform."""
    pins = {}
    for line in lock_lines():
        if line.marker is None or line.marker.evaluate(platform):
            (pin,) = line.specifier
            assert pin.operator == "==", f"{line} is no exact pin"
            name = canonicalize_name(line.name)
            assert name not in pins, f"{name} is pinned twice on {platform}"
            pins[name] = pin.version
    return pins


def declared():
    project = PYPROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    lists.append(PYPROJECT["build-system"]["requires"])  # --no-build-isolation takes it from there
    return [Requirement(text) for group in lists for text in group]


@pytest.mark.parametrize(
    "platform", PLATFORMS, ids=lambda p: f"{p['sys_platform']}-{p['python_version']}"
)
def test_lock_satisfies_pyproject(platform):
    pins = locked(platform)
    for requirement in declared():
        if requirement.marker is None or requirement.marker.evaluate(platform):
            name = canonicalize_name(requirement.name)
            assert name in pins, f"{requirement} is not in requirements.lock"
            assert requirement.specifier.contains(pins[name]), f"{requirement}: {pins[name]} locked"


def test_what_the_package_imports_is_declared():
    distribution = {"sklearn": "scikit-learn", "PIL": "pillow"}
    extra = PYPROJECT["project"]["optional-dependencies"]["birds"]
    names = {Requirement(text).name for text in PYPROJECT["project"]["dependencies"] + extra}
    used = {name.partition(".")[0] for module in MODULES for name in imports_of(module)}
    third_party = used - sys.stdlib_module_names - {"mcunc"}
    assert {distribution.get(name, name.replace("_", "-")) for name in third_party} <= names


def test_environment_yml_installs_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda, pip = [], []
    for entry in environment["dependencies"]:
        if isinstance(entry, dict):
            pip += entry["pip"]
        else:
            conda.append(entry)
    assert "pip" in conda
    assert "-r requirements.lock" in pip
    editable = [entry for entry in pip if entry.startswith("-e ")]
    assert editable == ["-e .[book]"]
    assert "book" in PYPROJECT["project"]["optional-dependencies"]

    ranges = {canonicalize_name(requirement.name): requirement for requirement in declared()}
    for entry in [*conda, *(e for e in pip if not e.startswith("-"))]:
        name, version = re.fullmatch(r"([\w.-]+)\s*=*\s*([\w.*]*).*", entry).groups()
        if name == "python":
            assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(version)
            assert any(platform["python_version"] == version for platform in PLATFORMS)
        elif name != "pip":
            requirement = ranges[canonicalize_name(name)]  # a KeyError: pyproject does not know it
            assert requirement.specifier.contains(locked(PLATFORMS[0])[canonicalize_name(name)])


# Addresses ------------------------------------------------------------------------------------


def texts():
    paths = [ROOT / name for name in ("_config.yml", "README.md", "CITATION.cff")]
    for kind in ("md", "ipynb"):
        paths += sorted((ROOT / "book").rglob(f"*.{kind}"))
    paths += sorted((ROOT / "mcunc").glob("*.py"))
    return [path for path in paths if path.exists() and ".ipynb_checkpoints" not in path.parts]


def test_public_addresses_are_those_of_pyproject():
    urls = PYPROJECT["project"]["urls"]
    owner, repository = re.fullmatch(
        r"https://github\.com/([\w-]+)/([\w-]+)", urls["Repository"]
    ).groups()
    assert urls["Documentation"] == f"https://{owner}.github.io/{repository}/"
    found = set()
    for path in texts():
        text = path.read_text(encoding="utf-8")
        code = re.findall(rf"github(?:\.com)?/([\w-]+)/({repository}[\w-]*)", text, re.IGNORECASE)
        pages = re.findall(rf"([\w-]+)\.github\.io/({repository}[\w-]*)", text, re.IGNORECASE)
        for address in code + pages:
            assert address == (owner, repository), f"{path.relative_to(ROOT)}: {'/'.join(address)}"
        found |= {path.name} if code else set()
    assert {"_config.yml", "README.md"} <= found


# Examples -------------------------------------------------------------------------------------


def examples():
    """Every Python block of the front pages and the guide, with the output below it, if any."""
    for name in ("README.md", "book/index.md", "book/reference/which.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        blocks = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, re.DOTALL)
        for number, (code, output) in enumerate(blocks):
            yield pytest.param(code, output, id=f"{name}-{number}")


def test_there_are_examples_and_one_shows_its_output():
    assert len(list(examples())) >= 2
    assert any(example.values[1] for example in examples())


@pytest.mark.parametrize(("code", "output"), list(examples()))
def test_the_examples_of_the_front_pages_run(code, output, capsys):
    exec(compile(code, "example", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.strip()
    assert output in ("", printed)
