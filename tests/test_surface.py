"""The public surface is exactly this: a name is added or dropped here on purpose, never by accident."""

from __future__ import annotations

import inspect
import subprocess
import sys

import weightspace as ws

NOUNS = ["Axis", "FitConfig", "NetSpec", "Networks", "Param", "Symmetry", "TrainConfig", "Weights", "Zoo"]
FUNCTIONS = ["evaluate", "fit", "fit_zoo", "mlp", "siren", "spec_of", "train"]
ROOMS = ["adapters", "align", "bench", "checkpoints", "datasets", "fitting", "models", "report", "signals"]
ROOMS += ["testing", "training", "transforms", "zoo"]
SURFACE = NOUNS + FUNCTIONS + ROOMS
ASSERTIONS = ["assert_equivariant", "assert_invariant", "assert_same_function", "check_model", "check_transform"]
TESTING = [*ASSERTIONS, "random_spec", "random_weights"]


def test_the_package_exports_what_is_listed() -> None:
    assert sorted(ws.__all__) == sorted(SURFACE)
    assert len(set(ws.__all__)) == len(ws.__all__)


def test_testing_exports_what_is_listed() -> None:
    from weightspace import testing

    assert sorted(testing.__all__) == TESTING
    assert all(inspect.getdoc(getattr(testing, name)) for name in TESTING)


def test_every_name_exists_and_is_documented() -> None:
    for name in ws.__all__:
        assert inspect.getdoc(getattr(ws, name)), name


def test_nothing_else_is_public() -> None:
    """Whatever else can be reached from the package is a module of its own or starts with an underscore."""
    public = {name for name, value in vars(ws).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public - {"annotations", "TYPE_CHECKING", "Any"} <= set(SURFACE)


def test_using_every_room_but_the_heavy_ones_loads_no_heavy_package() -> None:
    """Plots, the command line, Ray, compilers and SciPy's optimisers are loaded by what needs them alone."""
    code = """
import sys
import weightspace as ws
for name in ws.__all__:
    if name not in ("bench", "report"):
        found = getattr(ws, name)
        inner = set(getattr(found, "__all__", ())) - {"WeightClassifier", "WeightRegressor"}  # of scikit-learn
        [getattr(found, name) for name in inner]
heavy = ("matplotlib", "typer", "rich", "jinja2", "ray", "numba", "llvmlite", "scipy.optimize", "scipy.special", "PIL")
print(sorted(name for name in heavy if name in sys.modules))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, weightspace; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
