"""Colors one film: from a source to one partial file."""
