"""Backpack's daemon: the one process that holds the master key and the stored keys."""

__version__ = "0.1.0"
