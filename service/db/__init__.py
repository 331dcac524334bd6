"""Persistence: tables, their queries, sessions and migrations."""
