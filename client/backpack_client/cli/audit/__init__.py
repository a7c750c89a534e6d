"""The commands that look back: audit show, verify, blame, head."""
