"""Models on disk: weights as safetensors, and the description of how to make the model as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from weightspace._files import read_json, write_atomic
from weightspace._plugins import find, subclass_of
from weightspace._spec import NetSpec
from weightspace.models import _format1
from weightspace.models._model import Model, WeightModel
from weightspace.models._registry import MODELS, WRAPPERS, name_of

MODEL_FORMAT = 2
DTYPES = {str(t).removeprefix("torch."): t for t in (torch.float32, torch.float64, torch.bfloat16, torch.float16)}
_WEIGHTS, _DESCRIPTION = "model.safetensors", "model.json"
_DAMAGE = (ArithmeticError, AttributeError, KeyError, RecursionError, RuntimeError, TypeError, ValueError)


def save_model(model: WeightModel, path: str | Path) -> Path:
    """Write a model to a folder: ``model.safetensors`` and ``model.json``.

    A class of this library is stored by its name in :data:`MODELS`, any other by its import path. Wrappers are stored
    with the models in them, except :class:`Averaged`, whose transforms are not data.

    Args:
        model: a trained model; its normalisation, its dtype and what it says ``about`` its training are stored too.
        path: the folder, made if it is missing.

    Returns:
        The folder.

    Raises:
        TypeError: for a class that cannot be imported, or arguments that are not plain numbers, names and models.

    Example:
        >>> import tempfile, torch
        >>> import weightspace as ws
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> model = ws.models.build("dwsnet", spec, 3, hidden=4, layers=1)
        >>> w = ws.Weights(torch.randn(2, spec.num_params), spec)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = ws.models.load_model(ws.models.save_model(model, folder))
        >>> torch.equal(again(w), model(w))
        True
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    dtype = next((value.dtype for value in state.values() if value.is_floating_point()), torch.float32)
    description = {
        "format": MODEL_FORMAT,
        **_described(model),
        "dtype": str(dtype).removeprefix("torch."),
        "spec": json.loads(model.spec.to_json()),
        **({"about": dict(model.about)} if model.about else {}),
    }
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    write_atomic(path / _WEIGHTS, save(state))
    write_atomic(path / _DESCRIPTION, json.dumps(description, indent=1).encode())
    return path


def load_model(path: str | Path, *, imports: bool = False) -> WeightModel:
    """Read back what :func:`save_model` wrote, or version 0.1.0 did.

    Args:
        path: the folder.
        imports: whether a module that ``model.json`` names may be imported, which runs its code: say ``True`` only for
            files that you trust. Modules that are imported already are found without.

    Returns:
        The model, in evaluation mode. Of a run of :func:`weightspace.train` it has ``classes``, ``recipe`` and
        ``transform`` beside its ``spec``.

    Raises:
        FileNotFoundError: if there is no model in the folder, or a run that has not ended.
        ValueError: for a model of an unknown name, class or format, and files that are damaged or of two models.
    """
    path = Path(path)
    if (path / "last.pt").is_file():
        raise ValueError(
            f"{path}: expected a model, got a run of version 0.1.0; its weights are in best.safetensors, a state dict"
        )
    for name in (_DESCRIPTION, _WEIGHTS):
        if not (path / name).is_file():
            if (path / "last.ckpt").is_file():
                raise FileNotFoundError(
                    f"{path}: expected a finished run, got one without {name}; train again with the same arguments and "
                    "this folder to finish it, and with a class of an importable module"
                )
            raise FileNotFoundError(f"{path}: expected {name}, as ws.models.save_model writes it")
    description, state = _read_description(path / _DESCRIPTION), _read_state(path / _WEIGHTS)
    try:
        if description["format"] == 1:
            description, state = _format1.upgraded(description, state)
        spec = NetSpec.from_json(json.dumps(description["spec"]))
        dtype = _dtype(description)
        _check_sizes(description, spec, state)
        if not _paths(description):
            with torch.device("meta"):  # compares all shapes before any memory is taken
                _check_shapes(_made(description, spec, imports).state_dict(), state)
        model = _made(description, spec, imports)
        model.about = _about(description.get("about", {}))
    except _DAMAGE as error:
        reason = f"no {error}" if isinstance(error, KeyError) else f"{error!s:.400}"
        raise ValueError(
            f"{path / _DESCRIPTION}: expected a model as ws.models.save_model writes it, got {reason}"
        ) from error
    model.to(dtype)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path / _WEIGHTS}: expected the weights of {_DESCRIPTION}'s model, got {error}") from error
    return model.eval()


def _about(found: Any) -> dict[str, Any]:
    """Return what a description says of the training, checked as far as the library reads it."""
    kinds = {"classes": list, "recipe": dict, "transform": str | None, "signals": dict}
    if not isinstance(found, dict) or any(not isinstance(found[n], k) for n, k in kinds.items() if n in found):
        raise ValueError(f"'about' that is no record of a training: {found!r:.200}")
    if not all(isinstance(name, str) for name in found.get("classes", ())):
        raise ValueError(f"classes that are no names: {found['classes']!r:.200}")
    return found


def _described(model: WeightModel) -> dict[str, Any]:
    """Return a model's name and config as JSON holds them."""
    return {"model": name_of(model), "config": {key: _plain(value) for key, value in model.config.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, WeightModel):
        return _described(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"expected a config of plain numbers, names and models, got {type(value).__name__}")


def _read_description(path: Path) -> dict[str, Any]:
    """Read the description, and refuse what is not one."""
    description = read_json(path, "a model's description as ws.models.save_model writes it")
    if not isinstance(description, dict) or "format" not in description:
        raise ValueError(
            f"{path}: expected JSON with a 'format', as ws.models.save_model writes it, got {description!r:.60}"
        )
    if description["format"] not in (1, MODEL_FORMAT) or isinstance(description["format"], bool):
        raise ValueError(
            f"{path}: expected model format 1 or {MODEL_FORMAT}, got {description['format']!r:.60}; "
            "a newer weightspace may read it"
        )
    return description


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: expected the weights of {_DESCRIPTION}'s model, got {error}") from error


def _dtype(description: dict[str, Any]) -> torch.dtype:
    found = description.get("dtype", "float32")
    if not isinstance(found, str) or found not in DTYPES:
        raise ValueError(f"a dtype {found!r:.60}, not one of {list(DTYPES)}")
    return DTYPES[found]


def _check_sizes(description: dict[str, Any], spec: NetSpec, state: dict[str, Tensor]) -> None:
    """Refuse numbers that the weights cannot be of, before anything is made of them."""
    means = [value for name, value in state.items() if name.endswith("normalize.mean")]
    if not means or any(list(mean.shape) != [spec.num_params] for mean in means):
        raise ValueError(f"a spec of {spec.num_params} parameters, and weights of a model on other networks")
    if not _paths(description):
        count = sum(value.numel() for value in state.values())
        for name, value in _numbers(description["config"]):
            if value > count:
                raise ValueError(f"{name}={value!r:.60}, more than the {count} numbers in the weights")


def _check_shapes(expected: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    for name in {**expected, **state}:
        own, found = (None if name not in part else list(part[name].shape) for part in (expected, state))
        if own != found:
            raise ValueError(f"a model with {name} {own}, and weights with {found}")


def _numbers(config: Any, name: str = "config") -> Iterator[tuple[str, int]]:
    """Iterate over the whole numbers of a config, those of models in it too."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _numbers(value, key)
    elif isinstance(config, list):
        for value in config:
            yield from _numbers(value, name)
    elif isinstance(config, int):
        yield name, config


def _paths(description: Any) -> list[str]:
    """Return the names of classes outside of this library that a description needs."""
    if isinstance(description, list):
        return [path for part in description for path in _paths(part)]
    if not isinstance(description, dict):
        return []
    own = (
        [description["model"]]
        if isinstance(description.get("model"), str) and description["model"] not in {**MODELS, **WRAPPERS}
        else []
    )
    return own + [path for part in description.get("config", {}).values() for path in _paths(part)]


def _made(description: dict[str, Any], spec: NetSpec, imports: bool) -> WeightModel:
    """Make the model that a description is of, with new weights."""
    name = description["model"]
    if ":" in str(name) and not imports and name.partition(":")[0] not in sys.modules:
        raise ValueError(
            f"the class {name}, whose module is not imported; import it, or pass imports=True if you trust the file"
        )
    kind = find("models", name, {**MODELS, **WRAPPERS}, subclass_of(WeightModel))
    config = {key: _restored(value, spec, imports) for key, value in description["config"].items()}
    if issubclass(kind, Model):
        return kind(spec, **{**kind.presets.get(name, {}), **config})
    return kind(**config)


def _restored(value: Any, spec: NetSpec, imports: bool) -> Any:
    if isinstance(value, dict):
        return _made(value, spec, imports)
    if isinstance(value, list):
        return [_restored(item, spec, imports) for item in value]
    return value
