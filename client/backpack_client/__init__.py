"""Backpack's thin client."""
