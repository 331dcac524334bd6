"""Whether a line still looks as it did: scores against calibration, pictures against the first ones."""
