"""Models by name."""

from __future__ import annotations

from typing import Any, Literal

from weightspace._plugins import find, subclass_of
from weightspace._spec import NetSpec
from weightspace.models import ours, published
from weightspace.models._model import Model, WeightModel
from weightspace.models._wrappers import Averaged, Editor, Embedding, Ensemble

_FOUND = [getattr(room, name) for room in (ours, published) for name in room.__all__]

MODELS: dict[str, type[Model]] = dict(
    sorted((name, kind) for kind in _FOUND if issubclass(kind, Model) for name in kind.presets or (kind.name,))
)
"""The library's models by name; a class with presets has several names."""

WRAPPERS: dict[str, type[WeightModel]] = {
    kind.name: kind for kind in (Averaged, Editor, Embedding, Ensemble, *_FOUND) if not issubclass(kind, Model)
}
"""The models made of models by name."""


def build(
    name: str,
    spec: NetSpec,
    out_features: int,
    *,
    seed: int | None = None,
    head: Literal["invariant", "equivariant", "embedding", "editing"] = "invariant",
    **options: Any,
) -> WeightModel:
    """Make a model by its name.

    Args:
        name: a name of :data:`MODELS`, an import path such as ``my_package.module:MyModel``, or an entry point of the
            group ``weightspace.models`` of an installed package.
        spec: the networks to read.
        out_features: number of outputs, or of channels of an equivariant head.
        seed: of the initial weights; torch's global generator is used, and advanced, if it is ``None``.
        head: ``"invariant"``: a tensor, which every model has; ``"equivariant"``: weights to weights, which some have;
            ``"embedding"``: an :class:`Embedding` of the model; ``"editing"``: an :class:`Editor` on an equivariant
            model of one channel.
        options: further arguments of the model's class.

    Raises:
        TypeError: for an option that the class does not have.
        ValueError: for an unknown name, or a head that the model does not have.

    Example:
        >>> import weightspace as ws
        >>> build("mlp", ws.siren(2, 8, 8, 1), 10, seed=0).equivariance
        'none'
        >>> type(build("dwsnet", ws.siren(2, 8, 8, 1), 1, head="editing")).__name__
        'Editor'
    """
    kind = find("models", name, MODELS, subclass_of(Model))
    heads = (*kind.heads, "embedding", *(["editing"] if "equivariant" in kind.heads else []))
    if head not in heads:
        raise ValueError(f"head: expected one of {sorted(heads)} for {name!r}, got {head!r}")
    if head in ("equivariant", "editing"):
        options["head"] = "equivariant"
    if seed is not None:
        options["seed"] = seed
    model = kind(spec, out_features, **kind.presets.get(name, {}), **options)
    if head == "embedding":
        return Embedding(model)
    return Editor(model) if head == "editing" else model


def name_of(model: WeightModel) -> str:
    """Return the name or import path by which :func:`load_model` finds the class of a model.

    Raises:
        TypeError: for a class that cannot be found again.
    """
    kind, config = type(model), model.config
    for name, known in {**MODELS, **WRAPPERS}.items():
        preset = model.presets.get(name, {}) if isinstance(model, Model) else {}
        if kind is known and all(config.get(key) == value for key, value in preset.items()):
            return name
    path = f"{kind.__module__}:{kind.__qualname__}"
    try:
        found = None if kind.__module__ == "__main__" else find("models", path, {})
    except ValueError:
        found = None
    if found is not kind:
        raise TypeError(
            f"expected a model whose class can be imported, got {path}; define it at the top level of a module, or "
            "keep its state_dict() with safetensors"
        )
    return path
