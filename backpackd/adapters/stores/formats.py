"""The versions of the vault file's schema, and the check that a file holds exactly one of them.

It holds only statements. Other modules decide what is stored, and when an older file is upgraded.
docs/vault-format.md says what the tables mean.
"""

import sqlite3
from dataclasses import dataclass

from backpackd.core.errors import DamageError


@dataclass(frozen=True, slots=True)
class Format:
    """One version of the file's schema.

    Attributes:
        version: SQLite's `user_version`.
        schema: the statements that make it; they are compared with the file's, letter by letter.
        upgrade: the statements that lead here from the version before.
    """

    version: int
    schema: tuple[str, ...]
    upgrade: tuple[str, ...] = ()


_VAULT = """CREATE TABLE vault (
                id INTEGER PRIMARY KEY CHECK (id = 1),
                vault_id BLOB NOT NULL,
                authority BLOB NOT NULL
            ) STRICT"""
_SLOTS = "CREATE TABLE slots (slot_id BLOB PRIMARY KEY NOT NULL, body BLOB NOT NULL) STRICT"
_KEYS = """CREATE TABLE keys (
                row_index BLOB PRIMARY KEY NOT NULL,
                version INTEGER NOT NULL,
                head BLOB NOT NULL,
                value BLOB NOT NULL
            ) STRICT"""
_AUDIT = (
    """CREATE TABLE audit_keys (
                id INTEGER PRIMARY KEY CHECK (id = 1),
                wrap BLOB NOT NULL,
                verify BLOB NOT NULL
            ) STRICT""",
    """CREATE TABLE audit_log (
                number INTEGER PRIMARY KEY,
                kind INTEGER NOT NULL,
                previous BLOB NOT NULL,
                body BLOB NOT NULL
            ) STRICT""",
)

FORMATS: tuple[Format, ...] = (
    Format(1, (_VAULT, _SLOTS, _KEYS)),
    Format(2, (_VAULT, _SLOTS, _KEYS, *_AUDIT), upgrade=_AUDIT),
)
"""Every version so far, oldest first. Opening an older file upgrades it in one transaction."""


def check_schema(connection: sqlite3.Connection, form: Format) -> None:
    """Compare the file's schema with its format, letter by letter.

    Raises:
        DamageError: they differ.
    """
    found = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
    if sorted(sql for (sql,) in found) != sorted(form.schema):
        raise DamageError(
            "the vault file holds tables, views or triggers that do not belong there: restore it "
            "from a backup",
            reason="schema-changed",
        )
