"""What the polls say and what it adds up to. No threads, no I/O."""
