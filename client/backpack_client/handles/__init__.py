"""Objects that a program uses while it works: a lease's values, an agent, its memory.

Both APIs share them. Nothing here opens a connection: the API carries out calls.
"""
