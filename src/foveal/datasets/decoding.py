"""Decoding of image files into memory, with a list of the files that cannot be read."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from foveal.datasets.images import Problem
from foveal.foundation.errors import UserError
from foveal.images.photos import Photos
from foveal.images.sizing import ShortSide
from foveal.images.sources import Source
from foveal.images.threads import decode_images


def decode_photos(
    sources: Sequence[Source], size: ShortSide, channels: int | None
) -> tuple[Photos, list[int], list[Problem]]:
    """Decode photographs, keeping the aspect ratio of each.

    Args:
        sources: for each image, a path for messages and a function that returns the file's bytes.
        size: the short side to which they are resized.
        channels: 1 for grey, 3 or None for colour.

    Returns:
        The photographs grouped by size, the index of each in `sources`, and the problems: images
        that could not be read, or whose range of values had to be guessed.

    Raises:
        UserError: the photographs do not fit in memory.
    """
    channels = channels or 3
    by_shape: dict[torch.Size, list[tuple[int, Tensor]]] = {}
    problems: list[Problem] = []
    for index, result in enumerate(decode_images(sources, size, channels)):
        if isinstance(result, UserError):
            problems.append(Problem(sources[index][0], str(result)))
            continue
        if not by_shape:
            _check_memory(len(sources), result.image)
        if result.note:
            problems.append(Problem(sources[index][0], result.note, kept=True))
        by_shape.setdefault(result.image.shape, []).append((index, result.image))
    kept = [index for group in by_shape.values() for index, _ in group]
    parts = [torch.stack([image for _, image in group]) for group in by_shape.values()]
    return Photos(tuple(parts)), kept, problems


def decode_all(
    sources: Sequence[Source], size: tuple[int, int] | None, channels: int | None
) -> tuple[Tensor, list[int], list[Problem]]:
    """Decode images into one tensor, uint8 (M, C, H, W).

    Args:
        sources: for each image, a path for messages and a function that returns the file's bytes.
        size: height and width to resize to; None if all images have the same size.
        channels: 1 or 3; None for grey if all images are grey, else colour.

    Returns:
        The images, the index of each in `sources`, and the problems: images that could not be
        read, or whose range of values had to be guessed.

    Raises:
        UserError: sizes differ and `size` is not given, or the images do not fit in memory.
    """
    images = torch.empty(0, channels or 1, 1, 1, dtype=torch.uint8)
    kept: list[int] = []
    problems: list[Problem] = []
    for index, result in enumerate(decode_images(sources, size, channels)):
        if isinstance(result, UserError):
            problems.append(Problem(sources[index][0], str(result)))
            continue
        if result.note:
            problems.append(Problem(sources[index][0], result.note, kept=True))
        image = result.image
        if not kept:
            _check_memory(len(sources), image)
            images = torch.empty(len(sources), *image.shape, dtype=torch.uint8)
        elif image.shape[1:] != images.shape[2:]:
            raise _size_mismatch(sources[kept[0]][0], images[0], sources[index][0], image)
        if image.shape[0] > images.shape[1]:  # the first colour image after grey ones
            images = images.repeat(1, 3, 1, 1)
        images[len(kept)] = image
        kept.append(index)
    return images[: len(kept)], kept, problems


def _size_mismatch(path: str, image: Tensor, other_path: str, other: Tensor) -> UserError:
    """Return the error for two images (C, H, W) of different sizes."""
    (height, width), (other_height, other_width) = image.shape[1:], other.shape[1:]
    return UserError(
        f"The images differ in size ({path} is {height}x{width}, {other_path} is "
        f"{other_height}x{other_width}): give a size to resize to, such as data.size=[64, 64]."
    )


def _check_memory(count: int, image: Tensor) -> None:
    """Raise UserError unless `count` images of the size of `image` fit in memory."""
    required = count * image.numel()
    available = available_memory()
    if available is not None and required > available:
        raise UserError(
            f"{count:,} images of {image.shape[1]}x{image.shape[2]} need {required / 1e9:.1f} GB "
            f"of memory, and {available / 1e9:.1f} GB are free: give a smaller data.size."
        )


def available_memory() -> int | None:
    """Return the memory available without swapping, in bytes, or None if it is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        return None
