"""The calling processes: what they must be, which of them is the operator, when they exit.

`access` decides which keys a caller gets.
"""
