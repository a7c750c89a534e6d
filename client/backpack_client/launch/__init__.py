"""What `run` is made of: the agent's environment, its keys in a descriptor, and the exec.

Whether the agent gets keys is the daemon's decision.
"""
