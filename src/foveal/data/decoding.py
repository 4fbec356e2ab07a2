"""Many images into one tensor, decoded by threads; the bad ones are named."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count, sysconf

import torch
from torch import Tensor

from foveal.data.images import Problem
from foveal.data.reading import read_image
from foveal.errors import UserError


def decode_all(
    sources: Sequence[tuple[str, Callable[[], bytes]]],
    size: tuple[int, int] | None,
    channels: int | None,
) -> tuple[Tensor, list[int], list[Problem]]:
    """Decode images into bytes (M, C, H, W).

    Args:
        sources: a path to show, and a function that returns the file's bytes, for each image.
        size: height and width to resize to; None if all have the same.
        channels: 1 or 3; None for grey where all are grey, else colour.

    Returns:
        The images, the index of each in `sources`, and those that could not be read.

    Raises:
        UserError: sizes differ and `size` is not given, or the images do not fit in memory.
    """

    def one(source: tuple[str, Callable[[], bytes]]) -> Tensor | Problem:
        path, read = source
        try:
            return read_image(read(), size=size, channels=channels)
        except UserError as error:
            return Problem(path, str(error))
        except OSError as error:
            return Problem(path, error.strerror or str(error))

    if size is not None:
        _check_memory(len(sources) * (channels or 3) * size[0] * size[1])
    good: list[Tensor] = []
    kept: list[int] = []
    problems: list[Problem] = []
    with ThreadPoolExecutor(max_workers=max(2, cpu_count() or 2)) as pool:
        for index, found in enumerate(pool.map(one, sources)):
            if isinstance(found, Problem):
                problems.append(found)
            else:
                good.append(found)
                kept.append(index)
    return _stack(good), kept, problems


def _stack(images: list[Tensor]) -> Tensor:
    sizes = {tuple(image.shape[1:]) for image in images}
    if len(sizes) > 1:
        shown = ", ".join(f"{h}x{w}" for h, w in sorted(sizes)[:4])
        raise UserError(
            f"The images have {len(sizes)} different sizes ({shown}…): "
            "give one to resize to, such as data.size=[64, 64]."
        )
    if not images:
        return torch.empty(0, 1, 1, 1, dtype=torch.uint8)
    if any(image.shape[0] == 3 for image in images):
        images = [image.expand(3, -1, -1) for image in images]
    return torch.stack(images)


def _check_memory(needed: int) -> None:
    available = sysconf("SC_PHYS_PAGES") * sysconf("SC_PAGE_SIZE")
    if needed > 0.7 * available:
        raise UserError(
            f"The images need {needed / 1e9:.0f} GB in memory, and there are "
            f"{available / 1e9:.0f} GB: give a smaller data.size."
        )
