"""Low-rank adapters as networks: read folders, bring them to a balanced form, and read what no matrix changes."""

from weightspace.adapters._balance import balance, singular_values
from weightspace.adapters._read import read

__all__ = ["balance", "read", "singular_values"]
