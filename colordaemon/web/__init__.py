"""The page: what the daemon does and did, and the commands of its operator, for a browser."""
