"""Which inspection is to run next: one interface, in this process or in Redis. The database is the truth."""
