"""The zoo: networks on disk, with labels, sources, recipe and fit quality. Safetensors shards and one manifest."""

from weightspace.zoo._cnn_zoo import import_cnn_zoo
from weightspace.zoo._copy import copy
from weightspace.zoo._inspect import stats, verify
from weightspace.zoo._ops import merge, sample, split, subset
from weightspace.zoo._state_dicts import export_state_dicts, import_state_dicts
from weightspace.zoo._write import write_zoo
from weightspace.zoo._writer import ZooWriter
from weightspace.zoo._zoo import Zoo

__all__ = [
    "Zoo",
    "ZooWriter",
    "copy",
    "export_state_dicts",
    "import_cnn_zoo",
    "import_state_dicts",
    "merge",
    "sample",
    "split",
    "stats",
    "subset",
    "verify",
    "write_zoo",
]
