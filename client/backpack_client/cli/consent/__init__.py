"""The commands by which a person decides: requests, approve, deny, grants, policy."""
