"""Files that a user has or gets: `agent.lock`, `.env`, and new private files.

What a lock holds is known to the daemon only.
"""
