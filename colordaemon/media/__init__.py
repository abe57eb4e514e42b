"""Reads and writes photo and film files."""
