"""Color pictures to learn from and to be judged by."""
