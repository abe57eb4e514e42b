"""Photo and film files in and out."""
