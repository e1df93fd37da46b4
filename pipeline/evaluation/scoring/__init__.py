"""Texts to log-likelihoods, on one process or over ranks."""
