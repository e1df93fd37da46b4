"""Results: one typed row for each kind, written by who measures, read by who shows."""
