"""What people know about colors: reference pictures and dabs of color for a film or photo."""
