"""Color pictures for training and evaluation."""
