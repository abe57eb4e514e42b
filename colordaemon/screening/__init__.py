"""How good the colors of films are, frame by frame and in time."""
