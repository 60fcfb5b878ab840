"""Objectives by name."""

from __future__ import annotations

from weightspace._plugins import find, subclass_of
from weightspace.training._labelled import Classification, Regression
from weightspace.training._objective import Objective
from weightspace.zoo import Zoo

OBJECTIVES: dict[str, type[Objective]] = {"classification": Classification, "regression": Regression}
"""Objectives by name: those that need nothing beyond the zoo."""


def objective_for(name: str, zoo: Zoo) -> Objective:
    """Make the objective of a name, or of an import path such as ``my_package.module:MyObjective``, for a zoo.

    Raises:
        ValueError: for an unknown name, or a zoo without the labels that the objective needs.
    """
    return find("objectives", name, OBJECTIVES, subclass_of(Objective)).for_zoo(zoo)
