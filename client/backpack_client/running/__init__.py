"""What `run` is made of: the agent's environment, its keys in a descriptor, and becoming it."""
