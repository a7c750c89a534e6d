"""What a program holds while it works: a lease's values, an agent, its memory.

Both APIs share it. Nothing here opens a connection: calls are carried out by the API.
"""
