"""What is wrong with this machine, its configuration and its daemon, and how to mend it."""
