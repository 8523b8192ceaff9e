"""Names of scanners, and what is known of their scans when a file does not say.

`PROTOCOLS` gives the nominal field of the AI-READI protocols (field / frames is the pitch);
`SCANNER_SPACING_MM` is the last resort, a typical macular raster of each scanner.
"""

from __future__ import annotations

import re

UNKNOWN_SCANNER = "unknown"

# Folder names of AI-READI, with the words that identify each scanner in tags and paths. The first
# match counts, so a maker's name alone comes after its models.
_KNOWN = (
    ("heidelberg_spectralis", ("spectralis", "heidelberg", "heyex")),
    ("topcon_maestro2", ("maestro",)),
    ("topcon_triton", ("triton",)),
    ("topcon_3doct1000", ("3d oct-1000", "3doct-1000", "3doct1000", "3d_oct_1000")),
    ("zeiss_cirrus", ("cirrus", "zeiss")),
    ("bioptigen_sdoct", ("bioptigen",)),
    ("topcon", ("topcon",)),
)

# (words of the protocol name, slow field mm, axial spacing mm, fast field mm); the first match
# counts.
PROTOCOLS = (
    (("spectralis", "ppol", "mac"), 7.4, 0.00387, 8.9),
    (("spectralis", "mac", "20x20"), 5.8, 0.00387, 5.8),
    (("maestro2", "3d", "macula"), 6.0, 0.0026, 6.0),
    (("maestro2", "3d", "wide"), 9.0, 0.0026, 12.0),
    (("maestro2", "6x6"), 6.0, 0.0026, 6.0),
    (("triton", "3d", "radial"), 9.0, 0.0026, 12.0),
    (("triton", "12x12"), 12.0, 0.0026, 12.0),
    (("triton", "6x6"), 6.0, 0.0026, 6.0),
    (("cirrus", "mac"), 6.0, 0.00195, 6.0),
    (("cirrus", "disc"), 6.0, 0.00195, 6.0),
    (("cirrus", "6x6"), 6.0, 0.00195, 6.0),
)

# (pitch, axial, lateral) in mm.
SCANNER_SPACING_MM = {
    "heidelberg_spectralis": (0.12, 0.00387, 0.0115),
    "topcon_maestro2": (0.047, 0.0026, 0.0117),
    "topcon_triton": (0.035, 0.0026, 0.0234),
    "topcon_3doct1000": (0.047, 0.0035, 0.0117),
    "topcon": (0.047, 0.0026, 0.0117),
    "zeiss_cirrus": (0.047, 0.00195, 0.0117),
    "bioptigen_sdoct": (0.067, 0.00323, 0.0067),
    UNKNOWN_SCANNER: (0.047, 0.0035, 0.0117),
}

# Scan patterns that are not a raster, by words of the protocol name.
_NOT_RASTER = (
    (("onh", "rc"), "radial and circle scans around the disc"),
    (("circle",), "circle scan"),
    (("line",), "line scan"),
    (("cross",), "cross scan"),
)


def words_of(name: str) -> set[str]:
    """Lower-case words of a protocol or file name: "Spectralis_ONH-RC" -> {spectralis, onh, rc}."""
    return set(re.findall(r"[a-z0-9]+", name.lower()))


def scanner_name(manufacturer: str, model: str) -> str:
    """The scanner's folder-style name from its tags, "unknown" when both are empty."""
    return _find_scanner(f"{manufacturer} {model}") or slug(f"{manufacturer} {model}")


def scanner_from_folder(path: str) -> str:
    """The scanner folder of an AI-READI path, `structural_oct/SCANNER/...`, "" elsewhere."""
    named = re.search(r"structural_oct[/\\]([^/\\]+)[/\\]", path)
    return named.group(1) if named else ""


def scanner_from_path(path: str) -> str:
    """The known scanner that a path mentions, "unknown" when none is."""
    return scanner_from_folder(path) or _find_scanner(path) or UNKNOWN_SCANNER


def _find_scanner(text: str) -> str:
    lowered = text.lower()
    for name, words in _KNOWN:
        if name in lowered or any(word in lowered for word in words):
            return name
    return ""


def slug(text: str) -> str:
    """A name for files and tables: lower case, words joined by underscores."""
    return "_".join(re.findall(r"[a-z0-9]+", text.lower())) or UNKNOWN_SCANNER


def protocol_spacing(protocol: str, frames: int, columns: int) -> tuple[float, float, float] | None:
    """Spacing of a known protocol from its nominal field, None when the protocol is unknown."""
    words = words_of(protocol)
    for wanted, slow_mm, axial_mm, fast_mm in PROTOCOLS:
        if words.issuperset(wanted):
            return slow_mm / max(frames, 1), axial_mm, fast_mm / max(columns, 1)
    return None


def scanner_spacing(scanner: str) -> tuple[float, float, float]:
    """Typical spacing of a scanner, that of `unknown` for one that is not in the table."""
    return SCANNER_SPACING_MM.get(scanner, SCANNER_SPACING_MM[UNKNOWN_SCANNER])


def pattern_from_name(protocol: str) -> str:
    """Says in words which non-raster pattern the protocol name declares, "" for none.

    "radial" counts only without "3d": Triton's 3D(H)+Radial file holds the raster volume.
    """
    words = words_of(protocol)
    for wanted, meaning in _NOT_RASTER:
        if words.issuperset(wanted):
            return meaning
    return "radial scan" if "radial" in words and "3d" not in words else ""
