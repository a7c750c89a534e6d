"""agent.lock: what an agent needs, in one file that travels with its code (docs/agent-lock.md)."""
