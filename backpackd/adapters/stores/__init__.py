"""Durable storage of a vault: SQLite, and an in-memory twin for tests."""
