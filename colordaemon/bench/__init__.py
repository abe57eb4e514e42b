"""How fast this machine colors, beside what merely decoding and encoding takes."""
