"""How good the colors of pictures and films are, where the true ones are known."""
