"""lm-evaluation-harness over our models; the only room that imports it."""
