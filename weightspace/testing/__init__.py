"""Contract checks for layers, models and transforms, on random networks: for the library's own tests and for users'.

They need nothing of pytest: a check that fails raises ``AssertionError`` and says by how much.
"""

from weightspace.testing._assert import assert_equivariant, assert_invariant, assert_same_function
from weightspace.testing._model import check_model
from weightspace.testing._random import random_spec, random_weights
from weightspace.testing._transform import check_transform

__all__ = [
    "assert_equivariant",
    "assert_invariant",
    "assert_same_function",
    "check_model",
    "check_transform",
    "random_spec",
    "random_weights",
]
