"""Pictures of the run, embedded: the newest large, earlier steps as a strip of small ones."""

from __future__ import annotations

import base64
import html
import io

from etils import epath
from PIL import Image, UnidentifiedImageError

from training.record.report.read import RunRecord

LARGE_PIXELS = 1100  # longest side
SMALL_PIXELS = 108  # height in the strip, twice what is shown
TABLE_PIXELS = (900, 240)  # width and height in a table, up to twice what is shown
STRIP_STEPS = 8
SHOWN_NAMES = 12
LOSSLESS_PIXELS = 128 * 128  # smaller pictures stay exact
WIDE_RATIO = 2.2


def section(run: RunRecord) -> str:
    """The pictures by name, or a sentence that there are none."""
    in_tables = {name for table in run.tables for name in table.get("pictures", ())}
    by_name = pictures_by_name(run.workdir)
    by_name = {name: files for name, files in by_name.items() if name not in in_tables}
    if not by_name:
        return '<p class="soft">No pictures were written.</p>'
    names = sorted(by_name)
    figures = [_figure(name, by_name[name], run.problems) for name in names[:SHOWN_NAMES]]
    left = names[SHOWN_NAMES:]
    more = f'<p class="soft">Not shown: {html.escape(", ".join(left))}.</p>' if left else ""
    return f'<div class="pictures">{"".join(figures)}</div>{more}'


def pictures_by_name(workdir: epath.Path) -> dict[str, list[tuple[int, epath.Path]]]:
    """Name without ending -> (step, file), ascending by step."""
    found: dict[str, list[tuple[int, epath.Path]]] = {}
    for path in sorted((workdir / "artifacts").glob("*/*.png")):
        if path.parent.name.isdigit():
            found.setdefault(path.stem, []).append((int(path.parent.name), path))
    return {name: sorted(files) for name, files in found.items()}


def in_table(files: list[tuple[int, epath.Path]], problems: list[str]) -> str | None:
    """The newest of the (step, file) of a name, small; None and a problem if it is broken."""
    embedded = _embed(files[-1][1], *TABLE_PIXELS, problems)
    return None if embedded is None else f'<img alt="" src="{embedded[0]}">'


def _figure(name: str, files: list[tuple[int, epath.Path]], problems: list[str]) -> str:
    step, newest = files[-1]
    large = _embed(newest, LARGE_PIXELS, LARGE_PIXELS, problems)
    if large is None:
        return ""
    source, width, height = large
    kind = "picture wide" if width > WIDE_RATIO * height and width > 400 else "picture"
    small = ' class="small"' if width < 200 else ""
    title = html.escape(name.replace("_", " "))
    return (
        f'<figure class="{kind}"><img{small} alt="{title}" src="{source}">'
        f'<figcaption><span class="title">{title}</span> step {step:,}</figcaption>'
        f"{_strip(files[:-1], problems)}</figure>"
    )


def _strip(files: list[tuple[int, epath.Path]], problems: list[str]) -> str:
    """Evenly chosen earlier steps, the first always among them."""
    if not files:
        return ""
    stride = max(1, -(-len(files) // STRIP_STEPS))
    parts = []
    for step, path in files[::stride]:
        # Ten times as wide as high: in the strip only the height is a limit.
        small = _embed(path, 10 * SMALL_PIXELS, SMALL_PIXELS, problems)
        if small is not None:
            image = f'<img alt="step {step}" src="{small[0]}">'
            parts.append(f"<div>{image}<span>{step:,}</span></div>")
    return f'<div class="strip">{"".join(parts)}</div>'


def _embed(
    path: epath.Path, width: int, height: int, problems: list[str]
) -> tuple[str, int, int] | None:
    """A data URI no larger than `width` x `height`, with its size; None and a problem if broken."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as opened:
            # Inside of `with`, because Pillow reads the pixels only here.
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        place = path.relative_to(path.parents[2])
        problems.append(f"{place} is not a readable picture ({type(error).__name__})")
        return None
    image.thumbnail((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if image.width * image.height <= LOSSLESS_PIXELS:
        kind = "png"
        image.save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        image.save(buffer, "JPEG", quality=86)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind};base64,{text}", image.width, image.height
