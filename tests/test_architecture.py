"""The house: no import runs up, none in a circle, and every public name is reachable as ws.<room>.<name>."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from _helpers import ROOMS

import weightspace as ws

PACKAGE = Path(ws.__file__).parent
FLOORS = (
    "ground",
    "tracing",
    "signals",
    "datasets",
    "zoo",
    "align",
    "checkpoints",
    "adapters",
    "transforms",
    "fitting",
    "models",
    "testing",
    "training",
    "bench",
    "report",
    "cli",
)
"""The rooms from the ground up: a room imports only from rooms below it."""
MOST_NAMES = 155


def module_name(path: Path) -> str:
    parts = ("weightspace", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """The room of a module; files beside the rooms are the ground."""
    second = module.split(".")[1] if "." in module else ""
    return second if second in FLOORS else "ground"


def imported(path: Path, *, lazy: bool) -> Iterator[str]:
    """The modules of the package that a file imports; with ``lazy`` also those inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(ast.Module(list(executed_on_import(tree.body)), [])) if lazy else executed_on_import(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "weightspace")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "weightspace":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


def executed_on_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.dump(node.test):
                yield from executed_on_import(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from executed_on_import(node.body + [s for h in node.handlers for s in h.body] + node.orelse)
        else:
            yield node


def arrows_up(files: dict[str, Path]) -> list[str]:
    return [
        f"{module} imports {target}"
        for module, path in files.items()
        if module not in ("weightspace", "weightspace.__main__")
        for target in imported(path, lazy=True)
        if room(module) != "cli"
        and (target == "weightspace" or FLOORS.index(room(target)) > FLOORS.index(room(module)))
    ]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import one another, by Tarjan's algorithm."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1 or node in graph.get(node, ()):
                found.append(sorted(group))

    for node in graph:
        if node not in number:
            visit(node)
    return found


def graph_of(files: dict[str, Path]) -> dict[str, set[str]]:
    """Which module imports which; a package stands for its ``__init__``."""
    return {
        module: set(imported(path, lazy=True)) - {module} for module, path in files.items() if module != "weightspace"
    }


def test_every_folder_is_a_floor() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= set(FLOORS)


def test_no_import_runs_up() -> None:
    assert arrows_up(MODULES) == []


def test_an_import_that_runs_up_is_found(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f():\n    from weightspace.models import Model\n")
    (tmp_path / "worse.py").write_text("import weightspace as ws\n")
    bad = {"weightspace.align._bad": tmp_path / "bad.py", "weightspace.zoo._worse": tmp_path / "worse.py"}
    assert arrows_up(bad) == [
        "weightspace.align._bad imports weightspace.models",
        "weightspace.zoo._worse imports weightspace",
    ]


def test_no_modules_import_one_another() -> None:
    assert circles(graph_of(MODULES)) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_is_reachable_and_its_names_are_documented(name: str) -> None:
    found = getattr(ws, name)
    assert found is importlib.import_module(f"weightspace.{name}")
    assert name in ws.__all__
    assert inspect.getdoc(found)
    assert sorted(set(found.__all__)) == sorted(found.__all__)
    for public in found.__all__:
        value = getattr(found, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{public}"


def test_the_public_surface_stays_small() -> None:
    """Distinct names: what ``ws`` takes from a room counts once, and rooms do not count."""
    names = [(room, name) for room in ROOMS for name in getattr(ws, room).__all__]
    names = [(room, name) for room, name in names if not inspect.ismodule(getattr(getattr(ws, room), name))]
    own = [name for name in ws.__all__ if name not in ROOMS and name not in {name for _, name in names}]
    assert len(names) + len(own) <= MOST_NAMES, (len(names), own)


def test_docstrings_say_what_a_thing_does_or_is() -> None:
    """The first line begins with a verb or a noun, never with "What ..."."""
    bad = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                if text.startswith("What "):
                    bad.append(f"{module}: {text.splitlines()[0]}")
    assert bad == []
