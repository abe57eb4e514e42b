"""Files come in: which folders there are, what lies in them, and when a file is whole."""
