"""Files of a run: written beside and renamed, parts of batches, result tables."""
