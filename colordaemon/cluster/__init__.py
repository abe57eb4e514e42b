"""The same segments on many machines."""
