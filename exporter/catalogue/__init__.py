"""Every metric, declared once: :mod:`.metrics`, and the page that documents them: :mod:`.docs`."""
