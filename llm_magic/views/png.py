"""Pictures without a library: one byte a pixel is how much of a colour shows (PNG, RFC 2083)."""

from __future__ import annotations

import base64
import struct
import zlib

RGB = (70, 130, 220)


def encode_png(rows: list[bytes], rgb: tuple[int, int, int] = RGB) -> bytes:
    """A picture whose pixels are from 0, which shows nothing, to 255: so it stands on light and on dark pages.

    >>> encode_png([bytes([0, 255])])[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """
    width = len(rows[0])
    head = struct.pack(">IIBBBBB", width, len(rows), 8, 3, 0, 0, 0)  # 8 bits a pixel, a palette
    lines = b"".join(b"\0" + row for row in rows)
    chunks = [
        (b"IHDR", head),
        (b"PLTE", bytes(rgb) * 256),
        (b"tRNS", bytes(range(256))),
        (b"IDAT", zlib.compress(lines)),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in [*chunks, (b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def render_png(rows: list[bytes], description: str, width_px: int) -> str:
    """An image for HTML, its pixels kept sharp. The description is escaped already."""
    data = base64.b64encode(encode_png(rows)).decode()
    style = f"width:{width_px}px;image-rendering:pixelated"
    return f'<img alt="{description}" style="{style}" src="data:image/png;base64,{data}">'
