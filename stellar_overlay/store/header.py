"""Whose file it is, and in what state: from its bytes alone, before SQLite may touch it.

SQLite repairs, checkpoints and deletes as soon as it reads; a file that is not ours must stay as
it is, and one that is damaged must be copied first. Formats: sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from stellar_overlay.error import ConfigError
from stellar_overlay.store.schema import APPLICATION_ID, SCHEMA_VERSION

_MAGIC = b"SQLite format 3\0"
_HEADER = 100
_PAGE_HEADER = 8
"""Bytes of the b-tree header that follows the file's header on page 1."""
_LEAF = 0x0D
_WAL_MAGICS = {0x377F0682: "<", 0x377F0683: ">"}
"""With the byte order of the words that a checksum is made of."""
_WAL_VERSION = 3_007_000
_WAL_HEADER, _FRAME_HEADER = 32, 24
MAX_WAL_BYTES = 32 * 1024 * 1024
"""How much of a log is looked at; SQLite empties it at 4 MiB, unless a reader keeps it from it."""


@dataclass(frozen=True, kw_only=True)
class FileState:
    """What :func:`examine` found.

    :ivar exists: whether there is anything to keep.
    :ivar damage: what is wrong with it; empty when nothing is, as far as can be seen.
    """

    exists: bool
    damage: str = ""


def examine(path: str, *, is_vouched_for: bool) -> FileState:
    """Look at a database.

    :param is_vouched_for: whether a file beside it says that it is ours.
    :raises ConfigError: when it is not ours, or of a newer version; nothing was touched.
    :raises OSError: when it cannot be read.
    """
    page1 = _read_start(path)
    log = _read_log(path + "-wal")
    if not page1:
        return FileState(exists=False, damage="a log without its database" if log else "")
    wal = _Wal(log)
    effective = wal.page1 or page1
    if not _is_header(page1):
        if is_vouched_for:
            return FileState(exists=True, damage="its header is destroyed")
        raise _not_ours(path)
    if _application_id(page1) != APPLICATION_ID:
        if _application_id(page1) == 0 and not log and _is_without_tables(page1):
            return FileState(exists=False)
        raise _not_ours(path)
    if not wal.is_sound or (wal.page1 and _application_id(wal.page1) != APPLICATION_ID):
        return FileState(exists=True, damage="its write-ahead log is damaged, or another's")
    version = int.from_bytes(effective[60:64], "big")
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"database {path}: was written by a newer release (schema {version}, we know"
            f" {SCHEMA_VERSION}); upgrade the node, or name another file"
        )
    return FileState(exists=True)


def is_ours(path: str) -> bool:
    """Tell whether there is a file with our mark."""
    try:
        page1 = _read_start(path)
    except OSError:
        return False
    return _is_header(page1) and _application_id(page1) == APPLICATION_ID


def _not_ours(path: str) -> ConfigError:
    return ConfigError(
        f"database {path}: is not a database of stellar-overlay, and was left untouched; name"
        " another file, which will be created"
    )


def _read_start(path: str) -> bytes:
    folder = os.path.dirname(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ConfigError(f"database {path}: is not a file; name one, which will be created")
    except FileNotFoundError:
        if not os.path.isdir(folder):
            raise ConfigError(f"database {path}: create the folder {folder} first") from None
        return b""
    except NotADirectoryError:
        raise ConfigError(f"database {path}: {folder} is not a folder") from None
    with open(path, "rb") as file:
        return file.read(_HEADER + _PAGE_HEADER)


def _read_log(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_WAL_BYTES)
    except FileNotFoundError:
        return b""


def _is_header(page1: bytes) -> bool:
    """Tell whether a file begins as every database of SQLite does."""
    if len(page1) < _HEADER or not page1.startswith(_MAGIC):
        return False
    size = int.from_bytes(page1[16:18], "big")
    fractions = page1[21:24] == bytes((64, 32, 32))
    return fractions and (size == 1 or (size >= 512 and size & (size - 1) == 0))


def _application_id(page1: bytes) -> int:
    return int.from_bytes(page1[68:72], "big")


def _is_without_tables(page1: bytes) -> bool:
    tree = page1[_HEADER:]
    if not tree:
        return False
    return tree[0] == _LEAF and tree[3:5] == b"\0\0"


class _Wal:
    """A write-ahead log.

    :ivar page1: how page 1 begins, as of the last commit; empty when it is not in here.
    :ivar is_sound: whether all that was committed can be read; the torn end of a transaction
        that was never committed does no harm.
    """

    def __init__(self, log: bytes) -> None:
        self.page1 = b""
        self.is_sound = True
        if not log:
            return
        header = struct.unpack(">8I", log[:_WAL_HEADER]) if len(log) >= _WAL_HEADER else (0,) * 8
        magic, version, page_size, _, *salts, sum1, sum2 = header
        if magic not in _WAL_MAGICS or version != _WAL_VERSION or not 512 <= page_size <= 65536:
            self.is_sound = False
            return
        self._order = _WAL_MAGICS[magic]
        self._sums = self._checksum(log[:24], (0, 0))
        self.is_sound = self._sums == (sum1, sum2)
        self._read_frames(log, page_size, tuple(salts))

    def _read_frames(self, log: bytes, page_size: int, salts: tuple[int, ...]) -> None:
        is_chain_whole = self.is_sound
        pending = b""
        size = _FRAME_HEADER + page_size
        for start in range(_WAL_HEADER, len(log) - size + 1, size):
            page, commit, *rest = struct.unpack_from(">6I", log, start)
            if is_chain_whole:
                body = start + _FRAME_HEADER
                self._sums = self._checksum(log[start : start + 8], self._sums)
                if tuple(rest[:2]) == salts:
                    self._sums = self._checksum(log[body : body + page_size], self._sums)
                is_chain_whole = tuple(rest) == (*salts, *self._sums)
            if not is_chain_whole:
                if commit and tuple(rest[:2]) == salts:
                    self.is_sound = False
                    return
                continue
            if page == 1:
                begin = start + _FRAME_HEADER
                pending = log[begin : begin + _HEADER + _PAGE_HEADER]
            if commit:
                self.page1 = pending or self.page1

    def _checksum(self, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
        first, second = sums
        words = struct.unpack(f"{self._order}{len(data) // 4}I", data)
        for even, odd in zip(words[::2], words[1::2], strict=True):
            first = (first + even + second) & 0xFFFFFFFF
            second = (second + odd + first) & 0xFFFFFFFF
        return first, second


def files_of(path: str) -> list[Path]:
    """Return the files that a database consists of, those that exist."""
    return [file for end in ("", "-wal", "-journal") if (file := Path(path + end)).exists()]
