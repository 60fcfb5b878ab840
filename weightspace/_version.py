"""The version, at the bottom of the house, where every room can read it."""

__version__ = "0.2.0"
