"""From labeled pictures to a model file."""
