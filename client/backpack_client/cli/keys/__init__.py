"""The commands for keys and leases: put, list, get, leases, revoke."""
