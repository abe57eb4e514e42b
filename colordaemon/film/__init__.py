"""One film - from a source to one partial file."""
