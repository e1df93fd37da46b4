"""What leaves the house: engines, checkpoints and folders that other programs load."""
