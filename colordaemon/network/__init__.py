"""Luma to ab on a device."""
