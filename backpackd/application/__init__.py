"""What Backpack does: the vault's states, keys, access, and who is operator."""
