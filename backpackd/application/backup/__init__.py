"""Backups: everything that is stored, exported and imported, all or nothing.

`core/backup` defines the format of a backup.
"""
