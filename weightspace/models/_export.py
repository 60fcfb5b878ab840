"""A model on disk: its weights as safetensors, what it was built with as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from weightspace._files import write_atomic
from weightspace._spec import NetSpec
from weightspace.models._base import Model
from weightspace.models._registry import MODELS, build

MODEL_FORMAT = 1
_WEIGHTS, _ABOUT = "model.safetensors", "model.json"


def save_model(model: Model, path: str | Path) -> Path:
    """Write a model of :data:`MODELS` to a folder: ``model.safetensors`` and ``model.json``.

    Args:
        model: a trained model; its normalisation and its dtype are kept too.
        path: the folder, made where it is missing.

    Returns:
        The folder.

    Raises:
        TypeError: for a model that is not in :data:`MODELS`, whose class could not be found again, such as an
            :class:`Ensemble`: keep the models in it.

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
        "dtype": str(model.normalize.mean.dtype).removeprefix("torch."),
        "spec": json.loads(model.spec.to_json()),
    }
    text = json.dumps(about, indent=1, default=_plain)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomic(path / _WEIGHTS, save(state))
    write_atomic(path / _ABOUT, text.encode())
    return path


def load_model(path: str | Path) -> Model:
    """Read back what :func:`save_model` wrote.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: if there is no model in it.
        ValueError: for a model of an unknown name or format, and files that are damaged or of two models.
    """
    path = Path(path)
    for name in (_ABOUT, _WEIGHTS):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path}: expected {name}, as ws.models.save_model writes it")
    try:
        about = json.loads((path / _ABOUT).read_text())
    except ValueError as error:
        raise ValueError(f"{path / _ABOUT}: expected JSON as ws.models.save_model writes it, got {error}") from error
    if (found := about.get("format")) != MODEL_FORMAT:
        raise ValueError(
            f"{path}: expected model format {MODEL_FORMAT}, got {found!r}; a newer weightspace may read it"
        )
    model = build(about["model"], NetSpec.from_json(json.dumps(about["spec"])), **about["options"])
    dtype = getattr(torch, str(about.get("dtype", "float32")), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{path / _ABOUT}: expected a dtype such as 'float32', got {about['dtype']!r}")
    model.to(dtype)
    try:
        model.load_state_dict(load_file(path / _WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path / _WEIGHTS}: expected the weights of {_ABOUT}'s model, got {error}") from error
    return model


def _plain(value: Any) -> Any:
    """Numbers of NumPy are options like Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected options of plain numbers and names, got {type(value).__name__}")
