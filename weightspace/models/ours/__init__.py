"""Models of this library."""
