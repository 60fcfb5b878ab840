"""Published models, one a file."""
