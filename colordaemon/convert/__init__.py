"""Turns one source into one result, for `once` and for the daemon."""
