"""``WeightModel``, the protocol of all models on weights, and ``Model``, the template that checks and normalises."""

from __future__ import annotations

import inspect
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from weightspace._checks import check_keywords, probability, whole_number
from weightspace._spec import NetSpec
from weightspace._symmetry import Group
from weightspace._weights import Weights, check_built_for, check_finite
from weightspace.models._normalize import Normalize
from weightspace.models.layers._chain import check_readable

Track = Literal["weights-only", "probing", "function"]
Reads = Literal["any", "hidden", "chain"]
Output = Literal["tensor", "embedding", "weights"]
Head = Literal["invariant", "equivariant"]


class _Checked(ABCMeta):
    """The class of models: a call with other arguments than the constructor's says which it takes."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if not inspect.isabstract(cls):
            _check_arguments(cls, args, kwargs)
        return super().__call__(*args, **kwargs)


def _check_arguments(kind: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise ``TypeError`` unless the constructor of a model can be called with these arguments."""
    signature = inspect.signature(kind.__init__)
    try:
        signature.bind(None, *args, **kwargs)
    except TypeError as error:
        known = [p.name for p in list(signature.parameters.values())[1:] if p.kind is not p.VAR_KEYWORD]
        check_keywords(kind.__name__, kwargs, known)
        raise TypeError(f"{kind.__name__}: expected the arguments {known}, got others: {error}") from error


class WeightModel(nn.Module, metaclass=_Checked):
    """A module that reads networks: a :class:`Model`, or a wrapper around models.

    Training, suites, wrappers and files rely on these attributes and on calling it, and on nothing else. A subclass
    passes them to the constructor, which also checks that the spec is one that it ``reads``; they never change later.

    Args:
        spec: the networks that it reads.
        out_features: numbers per network; of a model that returns weights, channels per weight.
        output: ``"tensor"``: ``[batch, out_features]``; ``"embedding"``: the same with rows of length one;
            ``"weights"``: ``Weights``, with a channel axis if there are several channels.
        equivariance: the group under which a tensor does not change and weights move along: permutations, signs too,
            positive scales too, or all that the activations allow (:meth:`weightspace.Symmetry.sample`); ``"none"``
            for a model without symmetry.
        track: ``"weights-only"``: it never evaluates the network; ``"probing"``: it reads activations or gradients at
            learned inputs; ``"function"``: it reads outputs alone.

    Attributes:
        about: facts of the networks and of the training, which :func:`weightspace.train` notes and files keep: classes,
            recipe, transform, objective, init_regime and signals. Empty for a model that was not trained by it.
        name: the name by which :func:`build` and :func:`load_model` find the class.
        reads: ``"any"`` spec, those with at least one ``"hidden"`` axis, or those that are a ``"chain"``: MLPs and
            SIRENs with at least one hidden layer.

    Raises:
        TypeError: for something other than a ``NetSpec``.
        ValueError: for a spec that it does not read.
    """

    name: ClassVar[str] = ""
    reads: ClassVar[Reads] = "any"
    about: Mapping[str, Any] = MappingProxyType({})
    spec: NetSpec
    out_features: int
    output: Output
    equivariance: Group
    track: Track

    def __init__(self, spec: NetSpec, out_features: int, *, output: Output, equivariance: Group, track: Track) -> None:
        super().__init__()
        check_readable(spec, self.reads, type(self).__name__)
        self.spec, self.out_features = spec, whole_number("out_features", out_features)
        self.output, self.equivariance, self.track = output, equivariance, track

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments except ``spec`` and ``seed``: plain numbers and names, or models."""

    @abstractmethod
    def forward(self, weights: Weights) -> Tensor | Weights:
        """Read a batch of networks."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the outputs of a classifier, by number; empty where they are not known."""
        return tuple(self.about.get("classes", ()))

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe by which the networks were fitted that the model was trained on; empty where it is not known."""
        return dict(self.about.get("recipe", {}))

    @property
    def transform(self) -> str | None:
        """The augmentation that the model was trained with, as text."""
        return self.about.get("transform")

    @property
    def num_parameters(self) -> int:
        """Count the learned scalars."""
        return sum(p.numel() for p in self.parameters())


class Model(WeightModel):
    """A template that checks the networks, normalises them, and calls :meth:`compute`.

    A subclass declares at class level what it is, calls this constructor with its own arguments as ``config``, makes
    its layers, and implements :meth:`compute`. Its constructor takes ``(spec, out_features, *, ..., seed=None)`` and
    makes the layers under :func:`weightspace.models.layers.seeded_by` the seed.

    Args:
        spec: the networks to read.
        out_features: number of outputs, or of channels where ``config["head"]`` is ``"equivariant"``.
        normalize: the layer that weights pass first. Training fits it to the training split before the first step.
        config: the other arguments of the subclass' constructor, without ``seed``.
        equivariance: the group, where it depends on the arguments; by default what the class declares.
        track: the track, where it depends on the arguments; by default what the class declares.

    Attributes:
        heads: the values that ``head=`` takes, for models that have a choice.
        presets: further names for :func:`build`, each with the options that it stands for.
        mixes_linear: whether ``"full"`` holds on networks with linear axes, whose matrices mix neurons, as it does for
            models that read the network's function alone; elsewhere it becomes ``"scaled"`` there.
        reads_arrangement: whether the output depends on which entry of a parameter is where; statistics do not.

    Raises:
        TypeError: for something other than a ``NetSpec`` and a whole number of outputs.
        ValueError: for a spec that the model does not read, no outputs, or an unknown head.

    Example:
        >>> import weightspace as ws
        >>> class Means(Model):
        ...     equivariance = "permutation"
        ...
        ...     def __init__(self, spec, out_features, *, seed=None):
        ...         super().__init__(spec, out_features, Normalize(spec), {})
        ...         with ws.models.layers.seeded_by(seed):
        ...             self.linear = torch.nn.Linear(len(spec.params), out_features)
        ...
        ...     def compute(self, weights):
        ...         return self.linear(torch.stack([value.flatten(1).mean(1) for _, value in weights.items()], 1))
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> Means(spec, 3, seed=0)(ws.Weights(torch.randn(4, spec.num_params), spec)).shape
        torch.Size([4, 3])
    """

    heads: ClassVar[tuple[str, ...]] = ("invariant",)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    mixes_linear: ClassVar[bool] = False
    reads_arrangement: ClassVar[bool] = True
    equivariance: Group = "none"
    track: Track = "weights-only"
    normalize: Normalize

    def __init__(
        self,
        spec: NetSpec,
        out_features: int,
        normalize: Normalize,
        config: Mapping[str, Any],
        *,
        equivariance: Group | None = None,
        track: Track | None = None,
    ) -> None:
        head = config.get("head", "invariant")
        super().__init__(
            spec,
            out_features,
            output="weights" if head == "equivariant" else "tensor",
            equivariance=self.equivariance if equivariance is None else equivariance,
            track=self.track if track is None else track,
        )
        if self.equivariance == "full" and spec.linear and not self.mixes_linear:
            self.equivariance = "scaled"
        if head not in self.heads:
            raise ValueError(f"head: expected {' or '.join(map(repr, self.heads))}, got {head!r}")
        self.normalize, self._seen = normalize, False
        self._config = {"out_features": self.out_features, **config}
        _ = spec.slices, spec.num_params, spec.hidden  # computed here, because a compiler cannot fill a cache

    @property
    def config(self) -> dict[str, Any]:
        return dict(self._config)

    @final
    def forward(self, weights: Weights) -> Tensor | Weights:
        """Check and normalise the networks, then compute.

        Args:
            weights: ``[batch, param]`` of the model's spec.

        Returns:
            ``[batch, out_features]``, or ``Weights`` for an equivariant head.

        Raises:
            TypeError: for a plain tensor, or weights of a finer dtype than the model's.
            ValueError: for networks of another spec, an empty batch, features where raw weights belong, or numbers
                that are not finite.
        """
        check_built_for(self.spec, weights)
        if weights.flat.ndim != 2 or not len(weights):
            raise ValueError(
                f"expected weights [batch, param] with at least one network, got {list(weights.flat.shape)}"
            )
        own = self.normalize.mean.dtype
        if torch.promote_types(weights.dtype, own) != own:
            raise TypeError(f"expected weights of the model's {own}, got {weights.dtype}; cast one with .to(dtype)")
        if not torch.compiler.is_compiling():
            check_finite("weights", weights)
        out = self.compute(self.normalize(Weights(weights.flat, self.spec)))
        if self.training and not self._seen:
            self._watch(out)
        return out

    def _watch(self, out: Tensor | Weights) -> None:
        """Warn at the first backward pass if the normalisation was never fitted; nothing else is watched."""
        flat = out if isinstance(out, Tensor) else out.flat
        if torch.compiler.is_compiling() or not flat.requires_grad:
            return
        self._seen = True
        if self.normalize.per != "nothing" and not bool(self.normalize.fitted):
            flat.register_hook(lambda _: _warn_of_unfitted(self))

    @abstractmethod
    def compute(self, weights: Weights) -> Tensor | Weights:
        """Return the outputs for normalised weights."""


def _warn_of_unfitted(model: Model) -> None:
    if not bool(model.normalize.fitted):
        warnings.warn(
            f"{type(model).__name__}: expected a fitted normalisation, got one that passes weights as they are, which "
            "costs accuracy; call model.normalize.fit(zoo.weights('train')) first, as ws.train does",
            UserWarning,
            stacklevel=2,
        )


def checked_config(hidden: int, layers: int, dropout: float, seed: int | None, **others: Any) -> dict[str, Any]:
    """Check the arguments that most models have, and collect a model's ``config``.

    Args:
        hidden: width or channels, at least 2.
        layers: number of layers, at least 1.
        dropout: probability.
        seed: of the initial weights, or ``None``; it is checked, and is not part of the config.
        others: the model's own arguments, which it checks itself.

    Raises:
        TypeError: for something other than plain numbers.
        ValueError: for sizes out of range.
    """
    if seed is not None:
        whole_number("seed", seed, 0)
    sizes = {"hidden": whole_number("hidden", hidden, 2), "layers": whole_number("layers", layers)}
    return {**sizes, **others, "dropout": probability("dropout", dropout)}
