"""The parts of `run`: the agent's environment, its keys in a descriptor, and the exec.

The daemon decides whether the agent gets keys.
"""
