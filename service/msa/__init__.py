"""Measurement system analysis: how well camera, light and model together agree with known parts."""
