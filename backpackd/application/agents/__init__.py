"""Agent locks, from bytes to bytes, and the identities that sign and open them.

No path is opened here: a client sends a lock and gets the changed lock back.
"""
