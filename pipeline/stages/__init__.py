"""One file per stage: open inputs, call the pure code, write outputs."""
