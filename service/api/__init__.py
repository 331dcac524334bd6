"""HTTP: thin routers over the pipeline and the repository."""
