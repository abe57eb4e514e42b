"""Measures how good the colors of pictures and films are, if the true ones are known."""
