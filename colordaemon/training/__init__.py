"""Trains a model on labeled pictures."""
