"""Kinds of parts drawn for measuring the trainer on what it was not made with; see `docs/accuracy.md`."""
