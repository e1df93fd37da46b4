"""Studies: arms of equal size trained on the same tokens, and what follows from their losses."""
