"""The name of the pseudo-variant that a protected bundle shares in place of a gene's variants with few carriers.

There is one per gene and category. A study and the meta-analysis that reads its bundle know both, so that both can
make the name; it says nothing else.
"""

from __future__ import annotations

import hashlib
import re

HIDDEN_POSITION, HIDDEN_REF = 1, "N"
PREFIX = "<RARE:"


def hidden_alt(gene: str, category: str) -> str:
    """Return the ALT of the pseudo-variant of a gene and category: ``<RARE:LOF:1F2E3D4C5B6A7988>``.

    >>> hidden_alt("PCSK9", "LoF")[:10]
    '<RARE:LOF:'
    """
    digest = hashlib.blake2b(f"{gene}\0{category}".encode(), digest_size=8).hexdigest().upper()
    word = re.sub(r"[^A-Z0-9]+", "-", category.upper())[:40] or "ALL"
    return f"{PREFIX}{word}:{digest}>"


def is_hidden(alt: str) -> bool:
    """Return whether an ALT is that of a pseudo-variant."""
    return alt.startswith(PREFIX)
