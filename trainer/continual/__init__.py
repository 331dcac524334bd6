"""A further kind of part for a model that knows others, and what keeps it from forgetting those."""
