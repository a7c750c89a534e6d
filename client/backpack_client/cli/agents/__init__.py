"""The commands for agents: run, and everything about an agent's lock."""
