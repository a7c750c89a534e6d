"""What Backpack does: the vault's states, keys, access, and which caller is the operator."""
