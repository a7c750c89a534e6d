"""The format of backups: one sealed file, and the records that it holds.

What is exported, and what an import changes, is decided in the application.
"""
