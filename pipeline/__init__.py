"""Train, score, build and time inherently parallel Transformers beside their baselines."""
