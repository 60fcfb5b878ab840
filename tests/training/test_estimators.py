"""Estimators in the style of scikit-learn: on networks, on arrays, within scikit-learn's own tools."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from _helpers import labelled
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

import weightspace as ws
from weightspace.training import WeightClassifier, WeightRegressor

SPEC = ws.siren(2, 4, 1)
FAST = {"options": {"hidden": 8, "layers": 1}, "epochs": 4, "batch_size": 16, "lr": 0.03}


def test_a_classifier_learns_names() -> None:
    data = labelled(SPEC, 90)
    names = np.array(["ant", "bee", "cat"])[data.label]
    found = WeightClassifier("mlp", transform="noise", **FAST).fit(data.weights, names)
    assert found.classes_.tolist() == ["ant", "bee", "cat"]
    assert found.score(data.weights, names) > 0.6
    shares = found.predict_proba(data)
    assert shares.shape == (90, 3)
    assert np.allclose(shares.sum(1), 1, atol=1e-5)
    assert (found.classes_[shares.argmax(1)] == found.predict(data)).all()
    assert WeightClassifier("mlp", **FAST).fit(data).classes_.tolist() == [0, 1, 2]


def test_a_regression_learns_numbers() -> None:
    data = labelled(SPEC, 90)
    y = data.weights.flat.mean(1)
    found = WeightRegressor("mlp", **{**FAST, "epochs": 20}).fit(data.weights, y)
    assert found.score(data.weights, y) > 0.5
    assert found.predict(data.weights).shape == (90,)


def test_scikit_learn_s_own_tools_take_them() -> None:
    data = labelled(SPEC, 90)
    estimator = WeightClassifier("mlp", spec=SPEC, **FAST)
    again = clone(estimator).set_params(epochs=5)
    assert (again.get_params()["epochs"], again.spec) == (5, SPEC)
    assert is_classifier(estimator)
    assert is_regressor(WeightRegressor())
    scores = cross_val_score(estimator, data.weights.flat.numpy(), data.label.numpy(), cv=2)
    assert scores.mean() > 0.6


def test_the_estimator_checks_that_need_no_spec_pass() -> None:
    from sklearn.utils import estimator_checks as checks

    for check in (
        checks.check_no_attributes_set_in_init,
        checks.check_parameters_default_constructible,
        checks.check_get_params_invariance,
        checks.check_set_params,
        checks.check_estimator_repr,
        checks.check_estimator_tags_renamed,
        checks.check_valid_tag_types,
        checks.check_estimator_cloneable,
    ):
        check("WeightClassifier", WeightClassifier())
        check("WeightRegressor", WeightRegressor())


def test_what_cannot_be_fitted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = labelled(SPEC, 9)
    with pytest.raises(NotFittedError):
        WeightClassifier().predict(data)
    with pytest.raises(ValueError, match="spec: expected a NetSpec to read arrays with, got None; pass Weights"):
        WeightClassifier().fit(np.zeros((4, 3)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"X: expected 17 features for siren.*, got 3"):
        WeightClassifier(spec=SPEC).fit(np.zeros((4, 3)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="y: expected labels, got none"):
        WeightClassifier().fit(data.weights)
    with pytest.raises(ValueError, match="y: expected at least two classes, got one class"):
        WeightClassifier().fit(data.weights, torch.zeros(9))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        WeightClassifier().fit(data.weights, [0, 1])
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "weightspace.training._estimators")
    monkeypatch.delitem(vars(ws.training), "WeightClassifier")
    with pytest.raises(
        ImportError, match=r"needs scikit-learn, which is not installed; pip install weightspace\[digits\]"
    ):
        _ = ws.training.WeightClassifier
