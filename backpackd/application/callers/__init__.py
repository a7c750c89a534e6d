"""The processes that call: what they must be, who of them is operator, when they exit.

Which keys a caller gets is decided in `access`.
"""
