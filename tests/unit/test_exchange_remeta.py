"""REMETA's and MetaSKAT's binary files, packed by hand here from the layouts, and what is refused."""

from __future__ import annotations

import gzip
import struct
import zlib

import numpy as np
import pytest
from scipy import stats

from locomass.bundle.exchange.bgzf import BgzfReader, BgzfWriter
from locomass.bundle.exchange.common import ImportRequest
from locomass.bundle.exchange.metaskat import _crc32
from locomass.bundle.exchange.registry import find_format
from locomass.bundle.study import Bundle
from locomass.bundle.write import write_trait_bundle
from locomass.errors import FormatError, InputError
from tests.reference_exchange import make_toy


@pytest.fixture(scope="module")
def toy():
    return make_toy(7)


def pack_bgzf(parts):
    """Each part as a block of its own; the file and the virtual offset of each part."""
    data, offsets = b"", []
    for part in parts:
        offsets.append(len(data) << 16)
        raw = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = raw.compress(part) + raw.flush()
        head = bytes.fromhex("1f8b08040000000000ff060042430200") + struct.pack("<H", 18 + len(body) + 8 - 1)
        data += head + body + struct.pack("<II", zlib.crc32(part), len(part))
    return data + bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000"), offsets


def write_remeta(toy, folder, *, scale=1.0, pval=None):
    """HTP table and gene LD of a toy study, from its U and V."""
    V, U, counts = toy.V * scale, toy.U, toy.counts
    header = (
        "Name Chr Pos Ref Alt Trait Cohort Model Effect LCI_Effect UCI_Effect Pval AAF Num_Cases Cases_Ref Cases_Het "
        "Cases_Alt Num_Controls Controls_Ref Controls_Het Controls_Alt Info"
    )
    rows = [header.replace(" ", "\t")]
    for j in range(toy.m):
        beta, se = U[j] / V[j, j], 1 / np.sqrt(V[j, j])
        p = stats.chi2.sf(U[j] ** 2 / V[j, j], 1) if pval is None else pval
        cells = [toy.key(j), toy.chromosome[j], toy.position[j], toy.ref[j], toy.alt[j], "y", "c", "ADD-WGR-LR", beta,
                 beta - 1.959964 * se, beta + 1.959964 * se, p, toy.frequency[j], toy.n, *counts[j], *["NA"] * 4,
                 f"REGENIE_SE={se:.17g};MAC=3;SCORE={abs(U[j]):.17g};SKATV={V[j, j]:.17g};LOG10P=1"]  # fmt: skip
        rows.append("\t".join(map(str, cells)))
    rows.append("\t".join(["ONE.M1.0.01", "1", "1000", "ref", "M1.0.01", "y", "c", "ADD", *["NA"] * 13, "DF=1"]))
    (folder / "y.htp").write_text("\n".join(rows) + "\n")
    parts, lines = [b"remetaLD.v1.1"], []
    for members in toy.genes.values():
        d = np.sqrt(np.diag(V)[members])
        r = V[np.ix_(members, members)] / np.outer(d, d)
        pairs = [(i, j, r[i, j]) for j in range(len(members)) for i in range(j) if r[i, j] != 0]
        body = struct.pack("<iif", len(members), len(pairs), 0.0) + (d**2).astype("<f4").tobytes()
        parts.append(
            body + b"".join(struct.pack("<iif", *pair) for pair in pairs) + struct.pack("<iiifi", 0, 0, 0, 0, 0)
        )
    data, offsets = pack_bgzf(parts)
    for (gene, members), offset in zip(toy.genes.items(), offsets[1:], strict=True):
        lines.append(f"{gene}\t{offset}\t0\t{','.join(toy.key(j) for j in members)}\t\n")
    (folder / "ld.remeta.gene.ld").write_bytes(data)
    (folder / "ld.remeta.ld.idx.gz").write_bytes(gzip.compress("".join(lines).encode()))
    return ImportRequest(folder / "y.htp", folder / "ld")


def assert_reads(found, toy, tolerance):
    keys = [":".join(map(str, k)) for k in zip(found.chromosome, found.position, found.ref, found.alt, strict=True)]
    at = np.array([{toy.key(j): j for j in range(toy.m)}[key] for key in keys])
    np.testing.assert_allclose(found.U, toy.U[at], rtol=1e-9)
    np.testing.assert_allclose(found.V, np.diag(toy.V)[at], rtol=1e-6)
    genes = {g.gene: g for g in found.genes}
    assert set(genes) == set(toy.genes)
    for gene in genes.values():
        expected = toy.V[np.ix_(at[gene.variant], at[gene.variant])]
        np.testing.assert_allclose(gene.V, expected, atol=tolerance * np.abs(expected).max())


def test_remeta__gives_u_and_v_of_the_definition(toy, tmp_path):
    assert_reads(find_format("remeta").read(write_remeta(toy, tmp_path)), toy, 1e-6)  # float32 correlations


def test_remeta__a_corrected_p_value_sets_the_variance(toy, tmp_path):
    found = find_format("remeta").read(write_remeta(toy, tmp_path, scale=0.01, pval=0.3))
    p_of_score = stats.chi2.sf(toy.U**2 / (0.01 * np.diag(toy.V)), 1)
    at = [toy.position.index(p) if toy.position.count(p) == 1 else -1 for p in found.position]
    for k, j in enumerate(at):
        if j >= 0:
            expected = 0.3 if p_of_score[j] < 0.003 else p_of_score[j]
            assert stats.chi2.sf(found.U[k] ** 2 / found.V[k], 1) == pytest.approx(expected, rel=1e-6)


def test_remeta__written_and_read_back(toy, tmp_path):
    found = find_format("remeta").read(write_remeta(toy, tmp_path))
    write_trait_bundle(tmp_path / "bundle", [found], study="s", genome_build=None)
    files = find_format("remeta", writes=True).write(Bundle(tmp_path / "bundle"), "y", tmp_path / "again")
    assert [f.name for f in files] == ["again.htp"] + [
        f"again.remeta.{x}" for x in ("gene.ld", "buffer.ld", "ld.idx.gz")
    ]
    assert gzip.decompress(files[1].read_bytes())[:13] == b"remetaLD.v1.1"
    assert_reads(find_format("remeta").read(ImportRequest(files[0], tmp_path / "again")), toy, 1e-6)


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("y.htp", lambda b: b.replace(b"SKATV=", b"SKATV=x"), "line 2, column Info: expected a number for SKATV"),
        ("y.htp", lambda b: b.replace(b"\tInfo", b"\tInfos"), "line 1: no column Info"),
        ("ld.remeta.gene.ld", lambda b: b[: len(b) // 2], "is damaged|ends early|is not BGZF"),
        ("ld.remeta.gene.ld", lambda b: b"plain text", "is not BGZF"),
        ("ld.remeta.ld.idx.gz", lambda b: gzip.compress(b"ONE\t0\t0\trs1\n"), "line 1, column 4: 'rs1' is not"),
        ("ld.remeta.ld.idx.gz", lambda b: gzip.compress(b"ONE\tx\t0\t\n"), "line 1: expected gene, offset"),
        ("ld.remeta.ld.idx.gz", lambda b: gzip.compress(gzip.decompress(b).replace(b"1:1000:A:G,", b"")), "here and"),
    ],
)  # fmt: skip
def test_remeta__raises_on_damage(name, change, match, toy, tmp_path):
    request = write_remeta(toy, tmp_path)
    (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))
    with pytest.raises(FormatError, match=match):
        list(find_format("remeta").read(request).genes)


def test_remeta__names_what_is_not_there(toy, tmp_path):
    request = write_remeta(toy, tmp_path)
    (tmp_path / "ld.remeta.gene.ld").unlink()
    with pytest.raises(InputError, match=r"no .*ld.remeta.gene.ld: --covariance takes the prefix"):
        find_format("remeta").read(request)


def test_bgzf__reads_what_it_wrote_at_any_offset(tmp_path):
    writer, places = BgzfWriter(), []
    pieces = [bytes([k % 251]) * (k * 997 % 40_000) for k in range(40)]
    for piece in pieces:
        places.append(writer.tell())
        writer.write(piece)
    (tmp_path / "x").write_bytes(writer.content())
    assert gzip.decompress((tmp_path / "x").read_bytes()) == b"".join(pieces)
    reader = BgzfReader(tmp_path / "x")
    for place, piece in reversed(list(zip(places, pieces, strict=True))):
        reader.seek(place)
        assert reader.read(len(piece)) == piece


def write_metaskat(toy, folder, names=None):
    """.MInfo and .MSSD of a toy study."""
    rows = [f"#N.ALL={toy.n}", f"#N={toy.n}", "#nSets=3"]
    rows.append("SetID SetID_numeric SNPID Score MAF MissingRate MajorAllele MinorAllele PASS StartPOS StartPOSPermu")
    data = b"\x11"
    for k, (gene, members) in enumerate(toy.genes.items()):
        V = toy.V[np.ix_(members, members)]
        body = np.concatenate([V[j:, j] for j in range(len(members))]).astype("<f4").tobytes()
        for j in members:
            name = toy.key(j) if names is None else names[j]
            numbers = f"{toy.U[j]:.17g} {toy.frequency[j]:.17g} 0"
            rows.append(f"{gene} {k} {name} {numbers} {toy.ref[j]} {toy.alt[j]} PASS {len(data)} 0")
        data += crc32_bitwise(body).to_bytes(4, "little") + body
    (folder / "a.MInfo").write_text("\n".join(rows) + "\n")
    (folder / "a.MSSD").write_bytes(data)
    return ImportRequest(folder / "a.MInfo", folder / "a.MSSD")


def crc32_bitwise(data):
    """CRC-32/MPEG-2, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(7, -1, -1):
            top = (crc >> 31) ^ (byte >> bit & 1)
            crc = (crc << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if top else 0)
    return crc


def test_metaskat__checksum():
    assert crc32_bitwise(b"123456789") == 0x0376E6E7  # the catalogue's check value of CRC-32/MPEG-2
    assert _crc32(b"123456789") == 0x0376E6E7


def test_metaskat__gives_u_and_v_of_the_definition(toy, tmp_path):
    assert_reads(find_format("metaskat").read(write_metaskat(toy, tmp_path)), toy, 1e-6)


def test_metaskat__places_from_a_bim(toy, tmp_path):
    request = write_metaskat(toy, tmp_path, [f"SNP{j}" for j in range(toy.m)])
    with pytest.raises(FormatError, match="line 5, column SNPID: 'SNP0' is not chrom:pos:ref:alt; give --reference"):
        find_format("metaskat").read(request)
    lines = [f"{toy.chromosome[j]} SNP{j} 0 {toy.position[j]} {toy.alt[j]} {toy.ref[j]}\n" for j in range(toy.m)]
    (tmp_path / "a.bim").write_text("".join(lines))
    request = ImportRequest(request.scores, request.covariance, tmp_path / "a.bed")
    assert_reads(find_format("metaskat").read(request), toy, 1e-6)


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("a.MSSD", lambda b: b[:-1], "a.MSSD: ends before set 'THREE'"),
        ("a.MSSD", lambda b: b[:9] + b"x" + b[10:], "the checksum of set 'ONE' is wrong"),
        ("a.MSSD", lambda b: b"\x12" + b[1:], "does not begin with MetaSKAT's byte 0x11"),
        ("a.MInfo", lambda b: b.replace(b" Score ", b" Scores "), "line 4: no column Score"),
        (
            "a.MInfo",
            lambda b: b.replace(b" PASS 1 0\n", b" PASS x 0\n", 1),
            "line 5, column StartPOS: expected a number",
        ),
    ],
)
def test_metaskat__raises_on_damage(name, change, match, toy, tmp_path):
    request = write_metaskat(toy, tmp_path)
    (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))
    with pytest.raises(FormatError, match=match):
        find_format("metaskat").read(request)
