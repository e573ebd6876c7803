"""Chain files: against a walk through the blocks, position by position."""

import numpy as np
import pytest

from locomass.errors import FormatError
from locomass.tables.liftover import read_chain

# chr1: 100-110 -> 1000-1010, gap of 5 in the old build and 2 in the new one, 115-135 -> 1012-1032
# chr2, reverse strand of chr9 (length 500): 0-10 -> counted from the end 400-410, that is 90-99 forwards
CHAIN = """#comment
chain 900 chr1 5000 + 100 135 chr1 6000 + 1000 1032 1
10 5 2
20

chain 800 chr2 4000 + 0 10 chr9 500 - 400 410 2
10
"""


@pytest.fixture
def write(tmp_path):
    def _write(text):
        (tmp_path / "a.chain").write_text(text)
        return tmp_path / "a.chain"

    return _write


def walk(text, chromosome, position):
    """Return (chromosome, 1-based position, reverse) of one position from the definition, or None."""
    best = None
    for part in text.split("chain ")[1:]:
        head, *blocks = part.strip().splitlines()
        score, name, _, _, start, _, to, size, strand, to_start, *_ = head.split()
        old, new = int(start), int(to_start)
        for block in blocks:
            length, gap_old, gap_new = [*map(int, block.split()), 0, 0][:3]
            for step in range(length):
                if name == chromosome and old + step == position - 1:
                    forward = new + step if strand == "+" else int(size) - 1 - (new + step)
                    if best is None or int(score) > best[0]:
                        best = int(score), to.removeprefix("chr"), forward + 1, strand == "-"
            old, new = old + length + gap_old, new + length + gap_new
    return best and best[1:]


def check(text, path):
    chain = read_chain(path)
    asked = [(c, p) for c in ("chr1", "chr2", "chr3") for p in range(1, 200)]
    chromosome = np.array([c.removeprefix("chr") for c, _ in asked], dtype=object)
    lifted = chain.lift(chromosome, np.array([p for _, p in asked]))
    expected = [walk(text, *one) or ("", 0, False) for one in asked]
    assert list(zip(lifted.chromosome, lifted.position, lifted.reverse, strict=True)) == expected
    assert lifted.n_unmapped == sum(one[1] == 0 for one in expected)
    assert lifted.n_reverse == sum(one[2] for one in expected)
    return lifted


def test_lift__equals_a_walk_through_the_blocks(write):
    lifted = check(CHAIN, write(CHAIN))
    assert lifted.n_reverse == 10
    assert lifted.position[100] == 1001  # chr1:101 is 0-based 100, the first of the chain


def test_lift__the_better_chain_wins_where_two_overlap(write):
    text = CHAIN + "\nchain 1000 chr1 5000 + 105 120 chr5 700 - 10 25 3\n15\n"
    check(text, write(text))
    text = CHAIN + "\nchain 10 chr1 5000 + 90 150 chr5 700 + 10 70 3\n60\n"
    check(text, write(text))


def test_lift__empty_input(write):
    lifted = read_chain(write(CHAIN)).lift(np.array([], dtype=object), np.array([], dtype=np.int64))
    assert lifted.position.shape == (0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", r"line 1: expected 'chain score tName .*, got '1 2 3'"),
        (CHAIN.replace("10 5 2", "10 5"), r"line 3: expected 'size' or 'size dt dq', got '10 5'"),
        (CHAIN.replace("10 5 2", "0 5 2"), r"line 3: expected 'size' or 'size dt dq', got '0 5 2'"),
        (
            CHAIN.replace("10 5 2", "10 6 2"),
            r"line 4: the blocks of a chain end at 136 and 1032, its header says 135 and 1032",
        ),
        (CHAIN.replace("500 - 400", "500 ? 400"), r"line 6: expected strands '\+' and '\+' or '-', got '\+' and '\?'"),
        (CHAIN.rsplit("10\n", 1)[0], "is cut short, or holds no chain"),
        (CHAIN.replace("500 -", "5" * 20 + " -"), r"line 6: expected 'chain score tName"),
        ("#nothing\n", "is cut short, or holds no chain"),
    ],
)
def test_read_chain__raises_on_malformed(write, text, message):
    with pytest.raises(FormatError, match=message):
        read_chain(write(text))
