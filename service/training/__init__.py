"""Training sets from stored inspections."""
