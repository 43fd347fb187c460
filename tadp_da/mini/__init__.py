"""The embedded default: a world drawn on the fly, small models pretrained on it, and their weights."""
