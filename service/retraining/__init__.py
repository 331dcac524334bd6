"""The job that retrains a recipe: export, train, gate, release as a shadow."""
