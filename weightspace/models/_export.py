"""A model on disk: its weights as safetensors, what it was built with as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save

from weightspace._spec import NetSpec
from weightspace.models._base import Model
from weightspace.models._registry import MODELS, build
from weightspace.zoo._files import write_atomic

MODEL_FORMAT = 1
_WEIGHTS, _ABOUT = "model.safetensors", "model.json"


def save_model(model: Model, path: str | Path) -> Path:
    """Write a model of :data:`MODELS` to a folder: ``model.safetensors`` and ``model.json``.

    Args:
        model: a trained model, its normalisation included.
        path: the folder, made where it is missing.

    Returns:
        The folder.

    Raises:
        TypeError: for a model that is not in :data:`MODELS`: its class could not be found again.

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
    names = [name for name, kind in MODELS.items() if type(model) is kind]
    if not names:
        raise TypeError(
            f"expected a model of ws.models.MODELS, got {type(model).__name__}; keep its state_dict() with safetensors"
        )
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    about = {
        "format": MODEL_FORMAT,
        "model": names[0],
        "options": model.options,
        "spec": json.loads(model.spec.to_json()),
    }
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomic(path / _WEIGHTS, save(state))
    write_atomic(path / _ABOUT, json.dumps(about, indent=1).encode())
    return path


def load_model(path: str | Path) -> Model:
    """Read back what :func:`save_model` wrote.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: if there is no model in it.
        ValueError: for a model of an unknown name or format.
    """
    path = Path(path)
    for name in (_ABOUT, _WEIGHTS):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path}: expected {name}, as ws.models.save_model writes it")
    about = json.loads((path / _ABOUT).read_text())
    if (found := about.get("format")) != MODEL_FORMAT:
        raise ValueError(
            f"{path}: expected model format {MODEL_FORMAT}, got {found!r}; a newer weightspace may read it"
        )
    model = build(about["model"], NetSpec.from_json(json.dumps(about["spec"])), **about["options"])
    model.load_state_dict(load_file(path / _WEIGHTS))
    return model
