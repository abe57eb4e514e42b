"""How good guessed colors are."""
