"""The metric catalogue: :mod:`.metrics` declares every metric once, :mod:`.docs` renders the documentation."""
