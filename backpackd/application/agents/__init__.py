"""Agent locks, from bytes to bytes, and the identities that sign and open them.

No path is opened here: a client brings a lock and takes the changed lock back.
"""
