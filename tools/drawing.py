"""Plain SVG pictures of boxes and arrows, legible on light and on dark pages."""

from dataclasses import dataclass
from html import escape

# In pixels: distances between the centres of columns and of rows, size of a box, outer margin.
COLUMN, ROW, WIDTH, HEIGHT, MARGIN = 168, 84, 132, 52, 8
FILLS = {  # by kind of box
    "data": "#E8EBEE",
    "learned": "#CFE6F7",
    "fixed": "#F9E3B4",
    "evidence": "#C4E8DA",
    "output": "#F3D9E8",
}
LINE, INK = "#7A8794", "#222222"


@dataclass(frozen=True)
class Box:
    """A box of a picture: its position in columns and rows, its text and its kind."""

    column: float
    row: float
    text: str  # lines separated by |
    kind: str = "learned"  # a key of FILLS

    @property
    def centre(self) -> tuple[float, float]:
        """Position of the centre, in pixels from the top left."""
        return (
            MARGIN + WIDTH / 2 + self.column * COLUMN,
            MARGIN + HEIGHT / 2 + self.row * ROW,
        )


def draw(boxes: dict[str, Box], arrows: list[tuple[str, str]], title: str) -> str:
    """Return an SVG picture of boxes and arrows between them."""
    width = max(box.centre[0] for box in boxes.values()) + WIDTH / 2 + MARGIN
    height = max(box.centre[1] for box in boxes.values()) + HEIGHT / 2 + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13" text-anchor="middle">',
        f"<title>{escape(title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        f'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8Z" fill="{LINE}"/></marker></defs>',
        *(_arrow(boxes[source], boxes[target]) for source, target in arrows),
        *(_box(box) for box in boxes.values()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _arrow(source: Box, target: Box) -> str:
    """Draw an arrow between the facing edges of two boxes."""
    (x1, y1), (x2, y2) = source.centre, target.centre
    right, down = target.column - source.column, target.row - source.row
    if down == 0 or 0 < abs(down) <= 1 <= right:
        side = WIDTH / 2 if x2 > x1 else -WIDTH / 2
        # An arrow from the first column starts vertically if it would cross other boxes.
        starts_vertically = source.column == 0 and right >= 2
        start = (
            f"{x1:g} {y1 + HEIGHT / 2:g}V{y2:g}" if starts_vertically else f"{x1 + side:g} {y1:g}"
        )
        end = f"{x2 - side:g} {y2:g}"
    else:
        side = HEIGHT / 2 if y2 > y1 else -HEIGHT / 2
        start, end = f"{x1:g} {y1 + side:g}", f"{x2:g} {y2 - side:g}"
    return (
        f'<path d="M{start}L{end}" fill="none" stroke="{LINE}" '
        'stroke-width="1.5" marker-end="url(#tip)"/>'
    )


def _box(box: Box) -> str:
    x, y = box.centre
    lines = box.text.split("|")
    top = y + 4.5 - 8 * (len(lines) - 1)
    text = "".join(
        f'<text x="{x:g}" y="{top + 16 * n:g}" fill="{INK}"'
        + (' font-size="11"' if n else "")
        + f">{escape(line)}</text>"
        for n, line in enumerate(lines)
    )
    return (
        f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}" '
        f'rx="6" fill="{FILLS[box.kind]}" stroke="{LINE}"/>{text}'
    )
