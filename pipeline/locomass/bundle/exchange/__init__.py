"""Score statistics of other programs: one module per format, read into and written from plain arrays."""
