"""One source to one result, as both `once` and the daemon make it."""
