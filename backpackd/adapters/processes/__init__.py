"""Reading processes: who they are, what they run, and which processes stand above them."""
