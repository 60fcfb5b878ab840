"""The zoo: weights on disk, with labels, sources, recipe and fit quality. Safetensors shards and one manifest."""

from weightspace.zoo._in_memory import write_zoo
from weightspace.zoo._state_dicts import export_state_dicts, import_state_dicts
from weightspace.zoo._writer import ZooWriter
from weightspace.zoo._zoo import Zoo

__all__ = ["Zoo", "ZooWriter", "export_state_dicts", "import_state_dicts", "write_zoo"]
