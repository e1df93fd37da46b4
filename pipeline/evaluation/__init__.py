"""Scoring trained models: perplexity on the validation split, and tasks of the lm-evaluation-harness."""
