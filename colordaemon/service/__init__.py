"""Many files, for years: the daemon."""
