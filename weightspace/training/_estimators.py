"""Estimators in the style of scikit-learn: ``fit``, ``predict`` and ``score`` over model, transform and training."""

from __future__ import annotations

import tempfile
from typing import Any, Self

import numpy as np
import torch

from weightspace._extras import optional
from weightspace._networks import Networks
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.models import build
from weightspace.training._predict import predict
from weightspace.training._train import train
from weightspace.zoo import write_zoo

_base = optional("sklearn.base", "scikit-learn", "digits", "an estimator in the style of scikit-learn")
_validation = optional("sklearn.utils.validation", "scikit-learn", "digits", "an estimator")


class _Estimator(_base.BaseEstimator):
    """The parameters, and the training on networks in memory."""

    def __init__(
        self,
        model: str = "mlp",
        *,
        spec: NetSpec | None = None,
        options: dict[str, Any] | None = None,
        transform: Any = None,
        epochs: int = 100,
        batch_size: int = 64,
        lr: float = 2e-3,
        val_fraction: float = 0.1,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.model, self.spec, self.options, self.transform = model, spec, options, transform
        self.epochs, self.batch_size, self.lr = epochs, batch_size, lr
        self.val_fraction, self.seed, self.device = val_fraction, seed, device

    def _weights(self, X: Any) -> Weights:
        """Return networks as weights; arrays are rows of flat parameters of the ``spec``."""
        if isinstance(X, Networks):
            return X.weights
        if isinstance(X, Weights):
            return X
        array = _validation.check_array(X, dtype=np.float32)
        if not isinstance(self.spec, NetSpec):
            raise ValueError(f"spec: expected a NetSpec to read arrays with, got {self.spec!r}; pass Weights, or spec=")
        if array.shape[1] != self.spec.num_params:
            raise ValueError(f"X: expected {self.spec.num_params} features for {self.spec}, got {array.shape[1]}")
        return Weights(torch.from_numpy(np.ascontiguousarray(array)), self.spec)

    def _given(self, X: Any, y: Any) -> tuple[Weights, np.ndarray]:
        weights = self._weights(X)
        if y is None and isinstance(X, Networks):
            y = X.label
        if y is None:
            raise ValueError("y: expected labels, got none; pass y, or Networks with labels (requires y to be passed)")
        y = _validation.column_or_1d(y.cpu().numpy() if isinstance(y, torch.Tensor) else y, warn=True)
        _validation.check_consistent_length(range(len(weights)), y)
        return weights, y

    def _train(self, weights: Weights, label: Any, outputs: int, objective: str) -> Self:
        source = torch.arange(len(weights))
        self.model_ = build(self.model, weights.spec, outputs, seed=self.seed, **(self.options or {}))
        with tempfile.TemporaryDirectory() as folder:
            networks = Networks(weights.to("cpu"), label=torch.as_tensor(label), source=source)
            self.result_ = train(
                self.model_,
                write_zoo(folder, train=networks),
                transform=self.transform,
                objective=objective,
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                val_fraction=self.val_fraction,
                seed=self.seed,
                device=self.device,
            )
        self.n_features_in_ = weights.spec.num_params
        return self

    def _outputs(self, X: Any) -> np.ndarray:
        _validation.check_is_fitted(self, "model_")
        return predict(self.model_, self._weights(X), device=self.device).numpy()


class WeightClassifier(_base.ClassifierMixin, _Estimator):
    """A classifier of networks with the interface of scikit-learn: a model, a transform and the training loop in one.

    ``X`` is ``Weights`` or ``Networks``, or with a ``spec`` an array ``[batch, param]`` of flat parameters, as
    scikit-learn's own tools pass it. A part of the networks, ``val_fraction``, chooses the epoch.

    Args:
        model: a name that :func:`weightspace.models.build` takes.
        spec: the networks, where ``X`` is an array.
        options: further arguments of the model.
        transform: as for :func:`weightspace.train`; so are ``epochs``, ``batch_size``, ``lr``, ``val_fraction`` and
            ``seed``, which is also that of the initial weights.
        device: where to compute.

    Raises:
        ImportError: where scikit-learn is not installed.

    Example:
        >>> import weightspace as ws
        >>> spec, y = ws.siren(2, 4, 1), torch.arange(40) % 2
        >>> X = ws.Weights(y[:, None] + torch.zeros(40, spec.num_params), spec)
        >>> options = {"hidden": 8, "layers": 1}
        >>> fitted = WeightClassifier("mlp", options=options, epochs=4, batch_size=8, lr=0.1).fit(X, y)
        >>> fitted.score(X, y), fitted.predict(X[:2]).tolist()
        (1.0, [0, 1])
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on networks; the labels are ``y``, or those of ``Networks``."""
        weights, y = self._given(X, y)
        self.classes_, label = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least two classes, got one class: {self.classes_}")
        return self._train(weights, label.astype(np.int64), len(self.classes_), "classification")

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes, ``[batch, class]``, in the order of ``classes_``."""
        return torch.from_numpy(self._outputs(X)).softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest class of each network."""
        best = self._outputs(X).argmax(1)
        return self.classes_[best]


class WeightRegressor(_base.RegressorMixin, _Estimator):
    """A regression of a number on networks with the interface of scikit-learn, see :class:`WeightClassifier`."""

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on networks; the numbers are ``y``, or the labels of ``Networks``."""
        weights, y = self._given(X, y)
        return self._train(weights, np.asarray(y, np.float32), 1, "regression")

    def predict(self, X: Any) -> np.ndarray:
        """Return the number of each network."""
        return self._outputs(X)[:, 0]
