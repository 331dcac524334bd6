"""Every query of the service, by what it is about, on a session whose transaction the caller owns."""
