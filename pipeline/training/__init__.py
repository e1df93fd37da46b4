"""The training loop, its state, and Ray Train around it."""
