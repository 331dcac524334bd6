"""Shadows: candidates that score live images beside the active model, and never touch a verdict."""
