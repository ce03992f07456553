"""The container: what goes in comes out, and nothing else does.

Hostile and damaged files are forged with the standard library's :mod:`zipfile`, so that each
differs from an honest archive in the one thing under test.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import stat
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fapm.bundle import archive
from fapm.bundle.archive import FORMAT_VERSION, read_archive, write_archive
from fapm.errors import BundleError, OutputError

MANIFEST: dict[str, Any] = {"encoder": "efficientnet_lite0", "unit": 1.5, "layers": ["b", "a"]}
PARTS = {
    "thumbnails/0001.jpg": b"\xff\xd8" + bytes(range(256)) * 4,
    "keys.safetensors": bytes(range(255, -1, -1)) * 3,
    "empty": b"",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "part.fapm"


@pytest.fixture
def honest(path: Path) -> bytes:
    """The bytes of an archive of about 3 kB that stands at `path`."""
    write_archive(path, MANIFEST, PARTS)
    return path.read_bytes()


def refusal(path: Path) -> str:
    """The message with which the file at `path` is refused: one line that names the file."""
    with pytest.raises(BundleError) as caught:
        read_archive(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400
    return message


def names_in(directory: Path) -> list[str]:
    return sorted(child.name for child in directory.iterdir())


def describe(parts: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in parts.items()
    }


def manifest_of(contents: Mapping[str, bytes] = PARTS, **changes: object) -> dict[str, Any]:
    """The whole manifest of an archive with these parts, but for the changes."""
    own = {"format": "fapm", "format_version": FORMAT_VERSION, "parts": describe(contents)}
    return {**MANIFEST, **own, **changes}


def entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # 1980-01-01
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    return info


def forge(
    manifest: object = None,
    parts: Mapping[str, bytes] | list[tuple[str, bytes]] = PARTS,
    alter: Callable[[zipfile.ZipInfo], None] = lambda info: None,
    comment: bytes = b"",
) -> bytes:
    """An archive as fapm writes it but for the arguments. `alter` is applied to each part's entry.

    `manifest` is the document, or its bytes, or None for the one that describes `parts`.
    """
    pairs = sorted(parts.items() if isinstance(parts, Mapping) else parts)
    if manifest is None:
        manifest = manifest_of(dict(pairs))
    if not isinstance(manifest, bytes):
        manifest = json.dumps(manifest, sort_keys=True, indent=2).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names
        file.comment = comment
        file.writestr(entry("manifest.json"), manifest)
        for name, data in pairs:
            info = entry(name)
            alter(info)
            file.writestr(info, data, info.compress_type)
    return buffer.getvalue()


# What goes in comes out


def test_round_trip(path: Path) -> None:
    write_archive(path, MANIFEST, PARTS)
    assert read_archive(path) == (MANIFEST, PARTS)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
manifests = st.dictionaries(
    st.text().filter(lambda key: key not in {"format", "format_version", "parts"}),
    json_values,
    max_size=4,
)
segments = st.from_regex(r"[a-z0-9_][a-z0-9_.-]{0,8}", fullmatch=True)
part_names = st.lists(segments, min_size=1, max_size=3).map("/".join)
part_sets = st.dictionaries(
    part_names.filter(lambda name: name != "manifest.json"), st.binary(max_size=200), max_size=5
)


@given(manifest=manifests, parts=part_sets)
@example(manifest={"picture": os.fsdecode(b"not-utf8-\xff.png")}, parts={})
def test_any_parts_come_back(
    tmp_path_factory: pytest.TempPathFactory, manifest: dict[str, Any], parts: dict[str, bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.fapm"
    write_archive(path, manifest, parts)
    assert read_archive(path) == (manifest, parts)


def test_same_input_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one.fapm", tmp_path / "two.fapm"
    write_archive(one, MANIFEST, PARTS)
    write_archive(two, dict(reversed(MANIFEST.items())), dict(reversed(PARTS.items())))
    assert one.read_bytes() == two.read_bytes()


# By format, sha256 of the honest archive.
DIGESTS = {
    4: "cc92bebb2dadc6c9dd2c9398f4f7d8e80e71c7a790ac845acfb5d8629f0d1525",
    5: "9e23c021f47abdaf2f231b4961bfb1b208e6322942efa9fdd6c371e2e059e647",
}


@pytest.mark.parametrize("version", DIGESTS)
def test_the_bytes_of_every_format_are_fixed(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # When this fails, bundles written so far can no longer be read: raise FORMAT_VERSION and keep
    # reading the old ones, or undo the change.
    assert max(DIGESTS) == FORMAT_VERSION
    monkeypatch.setattr(archive, "FORMAT_VERSION", version)
    assert hashlib.sha256(archive.dumps(MANIFEST, PARTS)).hexdigest() == DIGESTS[version]


def test_memory_holds_what_a_file_holds(honest: bytes) -> None:
    assert archive.dumps(MANIFEST, PARTS) == honest
    assert archive.loads(honest) == (MANIFEST, PARTS)


def test_zip_tools_agree(path: Path, honest: bytes) -> None:
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        assert file.namelist() == ["manifest.json", *sorted(PARTS)]
        assert {name: file.read(name) for name in PARTS} == PARTS
        assert all(info.compress_type == zipfile.ZIP_STORED for info in file.infolist())
        assert all(stat.S_ISREG(info.external_attr >> 16) for info in file.infolist())
    assert forge() == honest


def test_manifest_on_disk(path: Path, honest: bytes) -> None:
    with zipfile.ZipFile(path) as file:
        text = file.read("manifest.json").decode()
    assert json.loads(text) == manifest_of()
    assert text == json.dumps(manifest_of(), indent=2, sort_keys=True)


# Accidents


def test_every_flipped_byte_is_detected(path: Path, honest: bytes) -> None:
    assert 2500 < len(honest) < 4000
    with path.open("r+b", buffering=0) as file:
        for position, byte in enumerate(honest):
            for flip in (0xFF, *(1 << bit for bit in range(8))):
                file.seek(position)
                file.write(bytes([byte ^ flip]))
                refusal(path)
            file.seek(position)
            file.write(bytes([byte]))
    assert read_archive(path) == (MANIFEST, PARTS)


def test_cut_off_at_every_length(path: Path, honest: bytes) -> None:
    for length in reversed(range(len(honest))):
        os.truncate(path, length)
        message = refusal(path)
        assert ("cut off" in message) == (length >= 4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"", "an empty file"),
        (lambda data: data[:-1], "damaged bundle: cut off after"),
        (lambda data: data + b"x", "damaged bundle: 1 bytes more than its manifest"),
        (lambda data: data.replace(b"EFGH", b"EFgH"), "damaged bundle: .* is not what was saved"),
    ],
    ids=["empty", "cut off", "longer", "changed"],
)
def test_bytes_are_checked_as_files_are(
    change: Callable[[bytes], bytes], reason: str, honest: bytes
) -> None:
    with pytest.raises(BundleError, match=f"^bundle: {reason}"):
        archive.loads(change(honest))


@given(data=st.data())
def test_any_edit_is_detected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    original = forge()
    start = data.draw(st.integers(0, len(original)))
    end = data.draw(st.integers(start, min(start + 64, len(original))))
    edited = original[:start] + data.draw(st.binary(max_size=64)) + original[end:]
    path = tmp_path_factory.getbasetemp() / "edited.fapm"
    path.write_bytes(edited)
    if edited == original:
        assert read_archive(path) == (MANIFEST, PARTS)
    else:
        refusal(path)


def plain_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("data.pkl", pickle.dumps([1, 2]))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"good,1\ngood,2\n" * 9, "not a fapm bundle"),
        (pickle.dumps({"memory": [1.0]}), "not a fapm bundle"),
        (plain_zip(), "a ZIP file, but not a fapm bundle"),
        (b"PK\x05\x06" + bytes(18), "not a fapm bundle"),
    ],
    ids=["empty", "text", "pickle", "zip", "empty zip"],
)
def test_other_files(path: Path, content: bytes, reason: str) -> None:
    path.write_bytes(content)
    assert reason in refusal(path)


def test_missing(path: Path) -> None:
    assert refusal(path) == f"{path}: no such file; check the path"
    refusal(path.with_name("x" * 300))


def test_directory(tmp_path: Path) -> None:
    assert "not a file" in refusal(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    assert "not a file" in refusal(path)


def test_read_failure(path: Path, honest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", failing(PermissionError(errno.EACCES, "Permission denied")))
    assert refusal(path) == f"{path}: cannot read: Permission denied"


# Hostile files


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "/etc/passwd", "c:/x", "a/../../x", "a/..", ".", "..", "a//b", "a/", "a\\b"),
        *(
            "",
            ".ssh",
            "-rf",
            "Keys",
            "schlüssel",
            "a\n",
            "a\0",
            "\udcff",
            "manifest.json",
            "a" * 201,
        ),
    ],
)
def test_names_that_are_not_plain(path: Path, name: str) -> None:
    manifest = manifest_of({name: b"data"})
    path.write_bytes(forge(manifest, {}))
    assert "unsafe part name" in refusal(path)
    with pytest.raises(ValueError, match="part name"):
        write_archive(path, {}, {name: b"data"})


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 500_000,
        b'{"format": "fapm", "format_version": ' + b"9" * 5000 + b"}",
        [],
        "fapm",
        {},
        manifest_of(format="zip"),
        manifest_of(format=None),
        manifest_of(format_version="1"),
        manifest_of(format_version=0),
        manifest_of(format_version=None),
        manifest_of(parts=None),
        manifest_of(parts=["keys"]),
        manifest_of(parts={"keys": None}),
        manifest_of(parts={"keys": {"bytes": 1}}),
        manifest_of(parts={"keys": {"bytes": -1, "sha256": ""}}),
        manifest_of(parts={"keys": {"bytes": 1.0, "sha256": ""}}),
        manifest_of(parts={"keys": {"bytes": 1, "sha256": None}}),
        manifest_of(parts={f"{i}": {"bytes": 0, "sha256": ""} for i in range(70_000)}),
    ],
    ids=lambda manifest: repr(manifest)[:40],
)
def test_other_manifests(path: Path, manifest: object) -> None:
    path.write_bytes(forge(manifest))
    assert "not a fapm bundle" in refusal(path)


def test_older_format(path: Path) -> None:
    path.write_bytes(forge(manifest_of(format_version=1)))
    assert refusal(path) == (
        f"{path}: written by an older fapm (format 1, this one reads {FORMAT_VERSION}); "
        "fit it again from its pictures"
    )


def test_newer_format(path: Path) -> None:
    # A later format may list its parts and lay them out in another way.
    manifest = manifest_of(format_version=FORMAT_VERSION + 1, parts="elsewhere")
    path.write_bytes(forge(manifest, comment=b"new"))
    assert refusal(path) == (
        f"{path}: needs a newer fapm, this one reads format {FORMAT_VERSION}; "
        "upgrade with pip install --upgrade fapm"
    )


@pytest.mark.parametrize("size", [2**32 - 1, 2**40, 10**4200])
def test_huge_declared_part(path: Path, size: int) -> None:
    path.write_bytes(forge(manifest_of(parts={"keys": {"bytes": size, "sha256": ""}})))
    assert "too large" in refusal(path)


def test_declared_part_larger_than_the_file(path: Path) -> None:
    path.write_bytes(forge(manifest_of(parts={"keys": {"bytes": 2**31, "sha256": ""}})))
    assert "cut off" in refusal(path)


@pytest.mark.parametrize(("size", "reason"), [(2**32 - 1, "too large"), (2**20, "cut off")])
def test_huge_declared_manifest(path: Path, honest: bytes, size: int, reason: str) -> None:
    path.write_bytes(honest[:18] + size.to_bytes(4, "little") * 2 + honest[26:])
    assert reason in refusal(path)


def test_wrong_checksum(path: Path) -> None:
    other = {name: bytes(len(data)) for name, data in PARTS.items()}
    path.write_bytes(forge(manifest_of(other)))
    assert "keys.safetensors is not what was saved" in refusal(path)


def test_compressed_bomb(path: Path) -> None:
    def deflated(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_DEFLATED

    bomb = bytes(50_000_000)
    path.write_bytes(forge(parts={"keys": bomb}, alter=deflated))
    assert path.stat().st_size < 100_000
    assert "cut off" in refusal(path)

    # The same, with a manifest that tells the truth of the stored bytes.
    packer = zlib.compressobj(wbits=-15)
    stored = {"keys": packer.compress(bomb) + packer.flush()}
    path.write_bytes(forge(manifest_of(stored), {"keys": bomb}, alter=deflated))
    assert "keys is not what was saved" in refusal(path)


def test_encrypted(path: Path, honest: bytes) -> None:
    def with_flag(signature: bytes, offset: int, content: bytes) -> bytes:
        flags = content.rindex(signature) + offset
        return content[:flags] + b"\x01" + content[flags + 1 :]

    path.write_bytes(with_flag(b"PK\x01\x02", 8, with_flag(b"PK\x03\x04", 6, honest)))
    with zipfile.ZipFile(path) as file:
        assert file.infolist()[-1].flag_bits == 1
    assert "thumbnails/0001.jpg is not what was saved" in refusal(path)


def test_symbolic_link(path: Path) -> None:
    def link(info: zipfile.ZipInfo) -> None:
        info.external_attr = 0o120777 << 16

    path.write_bytes(forge(alter=link))
    assert "its directory is not what was saved" in refusal(path)


@pytest.mark.parametrize("second", [PARTS["keys.safetensors"], b"other"])
def test_duplicate_entry(path: Path, second: bytes) -> None:
    pairs = [*PARTS.items(), ("keys.safetensors", second)]
    path.write_bytes(forge(manifest_of(), pairs))
    assert "damaged" in refusal(path)


def test_extra_entry(path: Path) -> None:
    path.write_bytes(forge(manifest_of(), {**PARTS, "extra": b""}))
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("name", PARTS)
def test_missing_entry(path: Path, name: str) -> None:
    rest = {other: data for other, data in PARTS.items() if other != name}
    path.write_bytes(forge(manifest_of(), rest))
    assert "cut off" in refusal(path)


def test_hidden_bytes(path: Path, honest: bytes) -> None:
    for content in (forge(comment=b"hello"), honest + b"\0"):
        path.write_bytes(content)
        assert "more than its manifest accounts for" in refusal(path)
    path.write_bytes(b"#!/bin/sh\n" + honest)
    assert "not a fapm bundle" in refusal(path)


# Writing: whole or not at all


def failing(error: BaseException, after: int = 0) -> Callable[..., Any]:
    """A function that returns 0 `after` times and then raises `error`."""
    calls = iter(range(after))

    def fail(*args: object) -> int:
        if next(calls, None) is None:
            raise error
        return 0

    return fail


@pytest.mark.parametrize("existing", [None, b"the old bundle"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), RuntimeError()])
@pytest.mark.parametrize(
    ("owner", "function", "after"),
    [(zlib, "crc32", 2), (os, "fsync", 0), (Path, "replace", 0)],
    ids=["between two parts", "before it is on disk", "before it has its name"],
)
def test_interrupted(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    existing: bytes | None,
    error: BaseException,
    owner: object,
    function: str,
    after: int,
) -> None:
    if existing is not None:
        path.write_bytes(existing)
    before = names_in(path.parent)
    monkeypatch.setattr(owner, function, failing(error, after))
    with pytest.raises(type(error)):
        write_archive(path, MANIFEST, PARTS)
    assert names_in(path.parent) == before
    assert existing is None or path.read_bytes() == existing


def test_disk_full(path: Path, honest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OutputError) as caught:
        write_archive(path, {}, {})
    assert str(caught.value) == f"{path}: cannot write: No space left"
    assert names_in(path.parent) == [path.name]
    assert path.read_bytes() == honest


def test_an_existing_bundle_is_replaced(path: Path, honest: bytes) -> None:
    write_archive(path, {"new": True}, {})
    assert read_archive(path) == ({"new": True}, {})
    assert names_in(path.parent) == [path.name]


def test_others_may_read_it_as_any_new_file(path: Path, honest: bytes) -> None:
    ordinary = path.with_name("ordinary")
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize("directory", ["missing", "file", "file/below"])
def test_no_such_directory(tmp_path: Path, directory: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / directory / "part.fapm"
    with pytest.raises(OutputError) as caught:
        write_archive(path, MANIFEST, PARTS)
    assert str(caught.value) == f"{path}: no such directory: {path.parent}"
    assert names_in(tmp_path) == ["file"]


def test_the_path_is_a_directory(path: Path) -> None:
    path.mkdir()
    with pytest.raises(OutputError, match="cannot write") as caught:
        write_archive(path, MANIFEST, PARTS)
    assert str(caught.value).startswith(f"{path}: ")
    assert names_in(path.parent) == [path.name]


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_MANIFEST_BYTES"])
def test_what_could_not_be_read_is_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(archive, limit, 500)
    with pytest.raises(OutputError, match=r"too large to save: .*more than 500 bytes"):
        write_archive(path, MANIFEST, PARTS)
    assert not path.exists()
    with pytest.raises(OutputError, match=r"^bundle: too large to save: .*more than 500 bytes"):
        archive.dumps(MANIFEST, PARTS)


@pytest.mark.parametrize(
    "manifest", [{"parts": {}}, {"format": "fapm"}, {"format_version": 1}, {"unit": float("nan")}]
)
def test_manifests_that_break_the_rules(path: Path, manifest: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"manifest keys|JSON compliant"):
        write_archive(path, manifest, {})
    assert not path.exists()


def test_too_many_parts(path: Path) -> None:
    with pytest.raises(ValueError, match="at most 60,000"):
        write_archive(path, {}, {f"{i}": b"" for i in range(60_001)})
