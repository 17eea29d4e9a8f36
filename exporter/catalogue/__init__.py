"""The metric catalogue: :mod:`.metrics` declares every metric once.

:mod:`.docs` renders it as Markdown, text and JSON, :mod:`.page` as HTML. :mod:`.spans` names the spans of polls.
"""
