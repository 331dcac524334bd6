"""Backups: the database as one file and the blobs it names, taken while the service runs, and put back."""
