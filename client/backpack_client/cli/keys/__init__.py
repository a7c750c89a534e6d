"""The commands for keys and what is handed out of them: put, list, get, leases, revoke."""
