"""BGZF: gzip in blocks of 64 kB, whose places are named by virtual offsets (SAM specification, section 4.1).

A virtual offset is ``place of the block in the file << 16 | place within the block``.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from locomass.errors import FormatError

BLOCK = 0xFF00
END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


class BgzfReader:
    """Reads bytes from any virtual offset.

    Raises:
        FormatError: the file is not BGZF, or ends early.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw = path.read_bytes()
        self.place, self.block, self.within = 0, b"", 0
        self.next = 0

    def seek(self, offset: int) -> None:
        """Go to a virtual offset."""
        self._load(offset >> 16)
        self.within = offset & 0xFFFF

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        out = b""
        while len(out) < size:
            if self.within >= len(self.block):
                self._load(self.next)
                if not self.block:
                    raise FormatError(f"ends early, at byte {self.place:,}; copy the file again", path=self.path)
            part = self.block[self.within : self.within + size - len(out)]
            out, self.within = out + part, self.within + len(part)
        return out

    def _load(self, place: int) -> None:
        header = self.raw[place : place + 18]
        if len(header) < 18 or header[:4] != b"\x1f\x8b\x08\x04" or header[12:14] != b"BC":
            raise FormatError(f"is not BGZF (bgzip) at byte {place:,}", path=self.path)
        size = struct.unpack("<H", header[16:18])[0] + 1
        try:
            self.block = zlib.decompress(self.raw[place + 18 : place + size - 8], -15)
        except zlib.error as error:
            raise FormatError(f"is damaged at byte {place:,} ({error}); copy the file again", path=self.path) from None
        self.place, self.within, self.next = place, 0, place + size


class BgzfWriter:
    """Collects bytes and gives the file's content."""

    def __init__(self) -> None:
        self.done, self.open = bytearray(), bytearray()

    def tell(self) -> int:
        """Return the virtual offset of the next byte."""
        return len(self.done) << 16 | len(self.open)

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self.open += data
        while len(self.open) >= BLOCK:
            self._flush(bytes(self.open[:BLOCK]))
            del self.open[:BLOCK]

    def content(self) -> bytes:
        """Return the file."""
        if self.open:
            self._flush(bytes(self.open))
            self.open.clear()
        return bytes(self.done) + END

    def _flush(self, data: bytes) -> None:
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = packer.compress(data) + packer.flush()
        header = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(packed) + 25)
        self.done += header + packed + struct.pack("<II", zlib.crc32(data), len(data))
