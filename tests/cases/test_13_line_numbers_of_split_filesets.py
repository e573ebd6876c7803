"""A variant that is listed twice in the second of two files is named with that file and the lines in it."""

from __future__ import annotations

import pytest

from locomass.errors import MatchError


def test_message__names_the_file_and_its_lines(open_case):
    with pytest.raises(MatchError, match=r"e2\.bim lines 2 and 3: variant 2:20 T/C is listed twice"):
        open_case("13-line-numbers-of-split-filesets").run("c")
