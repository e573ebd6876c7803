"""One file per format family; every reader names file, line and column in its errors."""
