"""The audit chain: what an entry is, how it is sealed, and how the whole is verified."""
