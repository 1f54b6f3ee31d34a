"""Texts of several domains, as Debian's packages carry them, cut into passages.

    mkdir texts && cd texts
    apt-get download fortunes fortunes-de fortunes-es fortunes-it r-cran-janeaustenr dict-foldoc dict-jargon
    for package in *.deb; do dpkg -x $package .; done

Man pages and Python sources are those of the machine.
"""

import gzip
import random
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

SHORTEST, LONGEST = 60, 1500
"""Characters of a passage; longer ones are cut into several."""

MOST = 6000
"""Passages of a domain."""


def domains(root: Path) -> dict[str, list[str]]:
    """Passages by domain, in an order of no meaning."""
    fortunes = root / "usr/share/games/fortunes"
    found = {
        "austen": _austen(root / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"),
        "foldoc": _dictionary(root / "usr/share/dictd/foldoc.dict.dz"),
        "jargon": _dictionary(root / "usr/share/dictd/jargon.dict.dz"),
        "fortunes": _fortunes(fortunes, ("de", "es", "it")),
        "fortunes-de": _fortunes(fortunes / "de"),
        "fortunes-es": _fortunes(fortunes / "es"),
        "fortunes-it": _fortunes(fortunes / "it"),
        "man pages": _man(Path("/usr/share/man")),
        "python": _python(),
    }
    result = {}
    for name, passages in found.items():
        kept = list(dict.fromkeys(p.strip() for p in passages if len(p.strip()) >= SHORTEST))
        random.Random(name).shuffle(kept)
        result[name] = kept[:MOST]
    return result


def topics(root: Path) -> dict[str, list[str]]:
    """English fortunes by topic."""
    folder = root / "usr/share/games/fortunes"
    files = sorted(f for f in folder.iterdir() if f.is_file() and not f.is_symlink() and not f.suffix)
    found = {f.name: [p for p in _read(f).split("\n%\n") if len(p) >= SHORTEST] for f in files}
    return {name: passages for name, passages in found.items() if len(passages) >= 40}


def _read(file: Path) -> str:
    data = gzip.decompress(file.read_bytes()) if file.suffix in (".gz", ".dz") else file.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _cut(text: str) -> Iterator[str]:
    """Passages of whole lines."""
    part = ""
    for line in text.splitlines():
        if len(part) + len(line) > LONGEST:
            yield part
            part = ""
        part += line.rstrip() + "\n"
    yield part


def _fortunes(folder: Path, without: tuple[str, ...] = ()) -> Iterator[str]:
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder).parts
        if (
            file.is_file()
            and not file.is_symlink()
            and file.suffix not in (".dat", ".u8")
            and inside[0] not in without
        ):
            yield from (p for p in re.split(r"\n%\n", _read(file)) if len(p) <= LONGEST)


def _dictionary(file: Path) -> Iterator[str]:
    for entry in re.split(r"\n(?=\S)", _read(file)):
        yield from _cut(re.sub(r"\s*\n\s+", "\n", entry))


def _austen(file: Path) -> Iterator[str]:
    """Paragraphs of six novels; R keeps each as a zlib stream of serialised lines, whose strings are read."""
    data, lines, place = file.read_bytes(), [], 0
    while place < len(data):
        try:
            stream = zlib.decompressobj()
            plain = stream.decompress(data[place + 4 :])
        except zlib.error:
            place += 1
            continue
        for match in re.finditer(rb"\x00\x04\x00\x09(....)", plain, re.DOTALL):
            (size,) = struct.unpack(">i", match[1])
            lines.append(plain[match.end() : match.end() + max(size, 0)].decode("utf-8", "replace"))
        place = len(data) - len(stream.unused_data)
    for paragraph in "\n".join(lines).split("\n\n"):
        yield from _cut(paragraph)


def _man(folder: Path) -> Iterator[str]:
    files = sorted(f for f in folder.glob("man[1-8]/*.gz") if not f.is_symlink())
    random.Random(0).shuffle(files)
    for file in files[:400]:
        plain = re.sub(r"\\f.|\\&|\\-", lambda m: "-" if m[0] == "\\-" else "", _read(file))
        plain = re.sub(r"^[.'](\\\"|\w+).*$", "", plain, flags=re.MULTILINE)
        for paragraph in re.split(r"\n\s*\n", plain):
            yield from _cut(paragraph)


def _python() -> Iterator[str]:
    files = sorted(Path(sys.base_prefix, f"lib/python3.{sys.version_info.minor}").glob("*.py"))
    for file in files:
        for part in re.split(r"\n(?=    def |def |class )", _read(file)):
            yield from _cut(part)
