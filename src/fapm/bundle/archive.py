"""The container of a bundle: one ZIP file in one canonical form. Knows nothing of detectors.

Any ZIP tool can list, test and unpack a bundle; but around the manifest and the parts, the reader
accepts nothing except the exact bytes the writer puts there. That one rule stands in for a list of
attacks and accidents: compressed or encrypted entries, duplicates, strays, links, comments and
padding, and flipped bits in the header fields that no ZIP checksum covers.

The layout, which later formats keep at least as far as the end of the manifest, so that this reader
can tell them from damage::

    manifest.json    what the bundle is; of every part its size and sha256
    parts            in the order of their names
    central directory and end record

Entries are stored, not compressed: keys are floats and pictures are JPEG, neither would shrink, and
a stored entry cannot be a zip bomb. The headers are written here and not by :mod:`zipfile`, whose
bytes depend on the Python version, so that the same input gives the same bytes everywhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

from fapm.errors import BundleError, OutputError
from fapm.plain import MALFORMED, reason
from fapm.system.files import replaced_when_complete

# What an archive holds: its manifest, without the keys of the container, and its parts by name.
Contents = tuple[dict[str, Any], dict[str, bytes]]
# By format: what turns the contents of that format into those of the next one.
Upgrades = Mapping[int, Callable[[Contents], Contents]]

FORMAT_VERSION = 5
MAX_BYTES = 2**32 - 1  # the reach of a plain ZIP; its 64-bit extension is not needed
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_PARTS = 60_000  # a plain ZIP counts its entries in 16 bits

_NO_UPGRADES: Upgrades = MappingProxyType({})
IN_MEMORY = "bundle"  # stands for the path in messages
_FORMAT = "fapm"
_MANIFEST = "manifest.json"
_RESERVED_KEYS = {"format", "format_version", "parts"}

# No segment begins with a dot, so '..' and hidden files are out without a rule of their own.
_PART_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*(/[a-z0-9_][a-z0-9_.-]*)*")
_MAX_NAME = 200

_LOCAL_SIGNATURE = b"PK\x03\x04"
_CENTRAL_SIGNATURE = b"PK\x01\x02"
_END_SIGNATURE = b"PK\x05\x06"
_LOCAL_BYTES, _CENTRAL_BYTES, _END_BYTES = 30, 46, 22
_CRC_AND_SIZE = struct.Struct("<II")
_CRC_OFFSET = 14
_ZIP_VERSION = 20
_MADE_ON_UNIX = 3 << 8 | _ZIP_VERSION
_MIDNIGHT, _FIRST_OF_1980 = 0, 1 << 5 | 1  # the oldest moment ZIP can tell
_REGULAR_FILE = 0o100644 << 16


class _Entry(NamedTuple):
    """The facts about one entry in the ZIP headers."""

    name: str
    size: int
    crc: int


class _Part(NamedTuple):
    """The facts about one part in the manifest."""

    size: int
    sha256: str


def write_archive(path: Path, manifest: Mapping[str, object], parts: Mapping[str, bytes]) -> None:
    """Write ``manifest`` and ``parts`` to ``path``, whole or not at all. Equal input, equal bytes.

    ``manifest`` is plain JSON (no NaN, no infinity); the keys ``format``, ``format_version`` and
    ``parts`` are the container's own. Part names are lower-case, such as ``thumbnails/0001.jpg``.

    Raises
    ------
    OutputError
        ``path`` cannot be written or the archive would be larger than can be read back. A file that
        was there before is untouched, and nothing else is left behind.
    ValueError, TypeError
        A manifest or part name outside the rules above: a mistake in the program.
    """
    contents = _entries(manifest, parts, str(path))
    with replaced_when_complete(path) as file:
        for piece in _pieces(contents):
            file.write(piece)


def dumps(manifest: Mapping[str, object], parts: Mapping[str, bytes]) -> bytes:
    """The bytes that :func:`write_archive` writes.

    Raises
    ------
    OutputError
        The archive would be larger than can be read back.
    ValueError, TypeError
        As for :func:`write_archive`.
    """
    return b"".join(_pieces(_entries(manifest, parts, IN_MEMORY)))


def _entries(
    manifest: Mapping[str, object], parts: Mapping[str, bytes], name: str
) -> dict[str, bytes]:
    """Everything an archive holds, in its order, once it is known to be small enough."""
    contents = {_MANIFEST: _manifest_bytes(manifest, parts)}
    contents.update((part, parts[part]) for part in sorted(parts))
    sizes = _sizes(contents)
    if sizes[_MANIFEST] > MAX_MANIFEST_BYTES:
        raise OutputError(
            f"{name}: too large to save: a manifest of more than {MAX_MANIFEST_BYTES:,} bytes"
        )
    if _archive_bytes(sizes) > MAX_BYTES:
        raise OutputError(f"{name}: too large to save: more than {MAX_BYTES:,} bytes")
    return contents


def _pieces(contents: Mapping[str, bytes]) -> Iterator[bytes]:
    """The bytes of an archive, piece by piece: parts are large and are not copied."""
    entries = []
    for name, data in contents.items():
        entry = _Entry(name, len(data), zlib.crc32(data))
        yield _local_header(entry)
        yield data
        entries.append(entry)
    yield _directory(entries)


def archive_bytes(manifest: Mapping[str, object], parts: Mapping[str, bytes]) -> int:
    """Length of the file that :func:`write_archive` would write."""
    return _archive_bytes(_sizes({_MANIFEST: _manifest_bytes(manifest, parts), **parts}))


def read_archive(path: Path, upgrades: Upgrades = _NO_UPGRADES) -> Contents:
    """The manifest and the parts that :func:`write_archive` was given.

    Sizes are judged before anything of that size is read, every byte of the file is checked, and
    nothing is unpacked to disk.

    Parameters
    ----------
    upgrades
        from older formats to the next one; a format is read if they lead from it to the present.

    Raises
    ------
    BundleError
        The file is missing, no bundle, of a newer format or of one too old, too large, or differs
        in any byte from what was written.
    """
    try:
        if not path.exists():
            raise BundleError("no such file; check the path")
        if not path.is_file():
            raise BundleError("not a file, so not a fapm bundle")
        with path.open("rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size, upgrades)
    except OSError as error:
        raise BundleError(f"{path}: cannot read: {error.strerror or error}") from error
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error.__cause__


def loads(data: bytes, upgrades: Upgrades = _NO_UPGRADES) -> Contents:
    """The manifest and the parts that :func:`dumps` was given, with the checks of a file.

    Raises
    ------
    BundleError
        As for :func:`read_archive`.
    """
    try:
        return _read(io.BytesIO(data), len(data), upgrades)
    except BundleError as error:
        raise BundleError(f"{IN_MEMORY}: {error}") from error.__cause__


def _read(file: BinaryIO, file_bytes: int, upgrades: Upgrades) -> Contents:
    entry, manifest = _read_manifest(file, file_bytes)
    version = _check_format(manifest, upgrades)
    listed = _check_parts(manifest)
    total = _archive_bytes(
        {_MANIFEST: entry.size, **{name: part.size for name, part in listed.items()}}
    )
    if total > MAX_BYTES:
        raise BundleError(f"too large: more than {MAX_BYTES:,} bytes")
    if file_bytes < total:
        raise _damaged(f"cut off after {file_bytes:,} of {total:,} bytes")
    if file_bytes > total:
        raise _damaged(f"{file_bytes - total:,} bytes more than its manifest accounts for")

    entries, parts = [entry], {}
    for name in sorted(listed):
        header = file.read(_LOCAL_BYTES + len(name))
        data = file.read(listed[name].size)
        entry = _Entry(name, len(data), zlib.crc32(data))
        sha256 = hashlib.sha256(data).hexdigest()
        if header != _local_header(entry) or sha256 != listed[name].sha256:
            raise _damaged(f"{name} is not what was saved")
        entries.append(entry)
        parts[name] = data
    directory = _directory(entries)
    if file.read(len(directory)) != directory:
        raise _damaged("its directory is not what was saved")
    contents = {key: manifest[key] for key in manifest if key not in _RESERVED_KEYS}, parts
    try:
        for older in range(version, FORMAT_VERSION):
            contents = upgrades[older](contents)
    except MALFORMED as error:
        raise BundleError(f"not a usable bundle ({reason(error)}); fit it again") from error
    return contents


def _read_manifest(file: BinaryIO, file_bytes: int) -> tuple[_Entry, dict[str, Any]]:
    """The first entry of the file; its checksum is right and it holds a JSON object."""
    header = file.read(_LOCAL_BYTES + len(_MANIFEST))
    if not header:
        raise BundleError("an empty file, not a fapm bundle")
    if not header.startswith(_LOCAL_SIGNATURE):
        raise BundleError("not a fapm bundle: not the ZIP file that fapm saves")
    if len(header) < _LOCAL_BYTES + len(_MANIFEST):
        raise _damaged(f"cut off after {file_bytes:,} bytes")
    crc, size = _CRC_AND_SIZE.unpack_from(header, _CRC_OFFSET)
    entry = _Entry(_MANIFEST, size, crc)
    if header != _local_header(entry):
        raise BundleError("a ZIP file, but not a fapm bundle, or changed since fapm wrote it")
    if size > MAX_MANIFEST_BYTES:
        raise BundleError(f"too large: a manifest of more than {MAX_MANIFEST_BYTES:,} bytes")
    if file_bytes < len(header) + size:
        raise _damaged(f"cut off after {file_bytes:,} bytes, within its manifest")
    text = file.read(size)
    if zlib.crc32(text) != crc:
        raise _damaged("its manifest is not what was saved")
    try:
        manifest = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError("not a fapm bundle: its manifest is not JSON") from error
    if not isinstance(manifest, dict):
        raise BundleError("not a fapm bundle: its manifest is not a JSON object")
    return entry, manifest


def _check_format(manifest: Mapping[str, Any], upgrades: Upgrades) -> int:
    """The format version of a manifest, which is one we read."""
    if manifest.get("format") != _FORMAT:
        raise BundleError(f"not a fapm bundle: its manifest does not name the format {_FORMAT!r}")
    version = manifest.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise BundleError("not a fapm bundle: its manifest names no format version")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"needs a newer fapm, this one reads format {FORMAT_VERSION}; "
            "upgrade with pip install --upgrade fapm"
        )
    oldest = FORMAT_VERSION
    while oldest - 1 in upgrades:
        oldest -= 1
    if version < oldest:
        reads = f"{oldest} to {FORMAT_VERSION}" if oldest < FORMAT_VERSION else f"{FORMAT_VERSION}"
        raise BundleError(
            f"written by an older fapm (format {version}, this one reads {reads}); "
            "fit it again from its pictures"
        )
    return version


def _check_parts(manifest: Mapping[str, Any]) -> dict[str, _Part]:
    """The parts that a manifest lists."""
    listed = manifest.get("parts")
    if not isinstance(listed, dict) or len(listed) > MAX_PARTS:
        raise BundleError("not a fapm bundle: its manifest lists no parts, or too many")
    parts = {}
    for name, description in listed.items():
        if not _is_part_name(name):
            raise BundleError(f"not a fapm bundle: unsafe part name {name[:_MAX_NAME]!r}")
        match description:
            case {"bytes": int(size), "sha256": str(sha256)} if size >= 0:
                parts[name] = _Part(size, sha256)
            case _:
                raise BundleError(f"not a fapm bundle: its manifest does not describe {name}")
    return parts


def _manifest_bytes(manifest: Mapping[str, object], parts: Mapping[str, bytes]) -> bytes:
    if taken := _RESERVED_KEYS & manifest.keys():
        raise ValueError(f"manifest keys of the container itself: {', '.join(sorted(taken))}")
    if len(parts) > MAX_PARTS:
        raise ValueError(f"{len(parts):,} parts, at most {MAX_PARTS:,}")
    if bad := [name for name in parts if not _is_part_name(name)]:
        raise ValueError(f"part name {bad[0]!r}")
    document = {
        **manifest,
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        "parts": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in parts.items()
        },
    }
    # Everything beyond ASCII is escaped: file names that are not valid Unicode, which Python holds
    # as lone surrogates, have no UTF-8 but survive as escapes.
    text = json.dumps(document, sort_keys=True, indent=2, allow_nan=False)
    return text.encode("utf-8")


def _is_part_name(name: str) -> bool:
    return len(name) <= _MAX_NAME and name != _MANIFEST and _PART_NAME.fullmatch(name) is not None


def _sizes(contents: Mapping[str, bytes]) -> dict[str, int]:
    return {name: len(data) for name, data in contents.items()}


def _archive_bytes(sizes: Mapping[str, int]) -> int:
    """Length of the file that holds entries of these sizes by name."""
    overhead = _LOCAL_BYTES + _CENTRAL_BYTES
    return sum(overhead + 2 * len(name) + size for name, size in sizes.items()) + _END_BYTES


def _local_header(entry: _Entry) -> bytes:
    """The header before the data of an entry: 30 bytes and the name."""
    return _LOCAL_SIGNATURE + _common_fields(entry) + entry.name.encode("ascii")


def _directory(entries: Sequence[_Entry]) -> bytes:
    """The directory behind the last entry: per entry 46 bytes and the name, then 22."""
    headers, offset = [], 0
    for entry in entries:
        # No comment, disk 0, binary data.
        rest = struct.pack("<HHHII", 0, 0, 0, _REGULAR_FILE, offset)
        made_by = struct.pack("<H", _MADE_ON_UNIX)
        name = entry.name.encode("ascii")
        headers.append(_CENTRAL_SIGNATURE + made_by + _common_fields(entry) + rest + name)
        offset += _LOCAL_BYTES + len(name) + entry.size
    directory = b"".join(headers)
    count = len(entries)
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), offset, 0)
    return directory + _END_SIGNATURE + end


def _common_fields(entry: _Entry) -> bytes:
    """The 26 bytes a local header and its twin in the central directory share."""
    flags, method, extra = 0, 0, 0  # not encrypted, stored, none
    return struct.pack(
        "<HHHHHIIIHH",
        *(_ZIP_VERSION, flags, method, _MIDNIGHT, _FIRST_OF_1980),
        *(entry.crc, entry.size, entry.size, len(entry.name), extra),
    )


def _damaged(what: str) -> BundleError:
    return BundleError(f"damaged bundle: {what}; copy it again or save it anew")
