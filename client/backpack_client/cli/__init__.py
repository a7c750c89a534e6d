"""The command line, one file per theme. A plain `get` does not come through here."""
