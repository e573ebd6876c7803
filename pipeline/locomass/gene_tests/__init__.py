"""Gene tests: pure functions of (U, V, frequencies, annotations), named in registry.py."""
