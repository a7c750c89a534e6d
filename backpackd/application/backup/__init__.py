"""Backups: everything that is stored, exported and imported, all or nothing.

The format of a backup is `core/backup`'s.
"""
