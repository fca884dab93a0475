"""The repository around the package: pins, addresses, examples of the front pages."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

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


def imported_names(tree):
    """Every module name imported anywhere in a file, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_what_the_package_imports_is_declared():
    distribution = {"sklearn": "scikit-learn", "PIL": "pillow"}
    extra = PYPROJECT["project"]["optional-dependencies"]["birds"]
    names = {Requirement(text).name for text in PYPROJECT["project"]["dependencies"] + extra}
    used = {
        name.partition(".")[0]
        for path in (ROOT / "mcunc").rglob("*.py")
        for name in imported_names(ast.parse(path.read_text(encoding="utf-8")))
    }
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
    paths += sorted((ROOT / "mcunc").rglob("*.py"))
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


# The map --------------------------------------------------------------------------------------


def test_the_map_of_the_package_is_complete():
    """Every module stands in README's map, below the folder it is in, and nothing else does."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^mcunc/\n(.*?)^tests/", readme, re.MULTILINE | re.DOTALL)
    listed = set(re.findall(r"\w+", block))
    modules = {
        path.stem for path in (ROOT / "mcunc").rglob("*.py")
        if path.stem not in ("__init__", "__main__", "experiments") and path.parent.name != "runs"
    } | {"data", "birdwatch", "recorded", "runs", "_internal", "cli", "common"}  # fmt: skip
    assert modules <= listed, modules - listed
    assert not [name for name in listed if "_" in name and name not in modules]
