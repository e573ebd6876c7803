"""`python -m locomass`: the command line."""

from __future__ import annotations

from locomass.cli import main

if __name__ == "__main__":
    main()
