"""Picture of the import graph of the package's parts: docs/images/architecture.svg.

The layers are those of package_imports.py. Arrows implied by others are omitted.
"""

from pathlib import Path

from drawing import Box, draw
from package_imports import LAYERS, by_part, edges

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"


def is_implied(graph: dict[str, set[str]], source: str, target: str) -> bool:
    """Return whether `target` is reached from `source` through another part."""
    visited, pending = set(), [part for part in graph[source] if part != target]
    while pending:
        part = pending.pop()
        if part == target:
            return True
        if part not in visited:
            visited.add(part)
            pending += graph[part]
    return False


def picture() -> str:
    """Return the import graph of the package as SVG."""
    graph = by_part(edges(ROOT / "src" / "foveal"))
    # The package and `__main__` import every part, and every part imports `foundation`.
    hidden = {"", "__main__", "foundation"}
    boxes = {}
    layers = [
        [part for part in sorted(layer) if part in graph and part not in hidden] for layer in LAYERS
    ]
    layers = [layer for layer in reversed(layers) if layer]
    max_width = max(len(layer) for layer in layers)
    for row, layer in enumerate(layers):
        for column, part in enumerate(layer):
            x = column + (max_width - len(layer)) / 2
            boxes[part] = Box(x, row * 1.2, part, "fixed" if row % 2 else "learned")
    arrows = [
        (source, target)
        for source in sorted(boxes)
        for target in sorted(graph[source])
        if target in boxes and not is_implied(graph, source, target)
    ]
    return draw(boxes, arrows, "Imports between the parts of Foveal")


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
