"""Large images in zarr: single arrays, and OME-Zarr images with several resolutions (levels)."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveal.foundation.errors import UserError, missing_extra, one_line
from foveal.foundation.files import check_regular
from foveal.images.pyramids.pyramid import BlockCache, Pyramid, check_block, make_levels
from foveal.images.values import as_fractions

if TYPE_CHECKING:
    from zarr import Array
    from zarr.storage import LocalStore

# Codecs that only rearrange or compress numbers. `pickle`, which executes code, is not among them.
CODECS = frozenset(
    {"adler32", "bitround", "blosc", "bytes", "bz2", "crc32", "crc32c", "delta", "fixedscaleoffset"}
    | {"fletcher32", "gzip", "lz4", "lzma", "packbits", "quantize", "sharding_indexed", "shuffle"}
    | {"transpose", "zlib", "zstd"}
)


class Zarr(Pyramid):
    """A zarr array, or the levels of an OME-Zarr image, read chunk by chunk.

    An array has the shape (H, W), (C, H, W) or (H, W, C); other axes of OME-Zarr must have a length
    of 1. The pixels of missing chunks have the array's fill value, as the format specifies.

    Args:
        path: path of the folder.

    Raises:
        UserError: zarr is not installed, or the folder does not contain such an image.
    """

    def __init__(self, path: Path):
        try:
            import zarr
        except ImportError:
            raise missing_extra("zarr", "zarr") from None
        if not path.exists():
            raise UserError("the file does not exist")
        try:
            node = zarr.open(_store(path), mode="r")
            arrays, axes = _arrays_and_axes(node)
        except UserError:
            raise
        except Exception as error:  # zarr raises almost anything on broken folders
            raise UserError(f"not a zarr image: {one_line(error, 120)}") from None
        for array in arrays:
            _check_array(array)
        self.axes = axes
        self.channels = _length(arrays[0].shape, axes, "c", default=1)
        if self.channels not in (1, 3):
            raise UserError(f"it has {self.channels} channels: store 1 (greyscale) or 3 (colour)")
        sizes = [_height_width(array.shape, axes) for array in arrays]
        blocks = [_height_width(array.chunks, axes) for array in arrays]
        self.levels = make_levels(sizes, blocks)
        self.arrays = [arrays[sizes.index(level.size)] for level in self.levels]
        for array, level in zip(self.arrays, self.levels, strict=True):
            check_block(level.block, self.channels, array.dtype.itemsize)
        self.blocks = BlockCache()

    def read(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a box of a level, as floats (height, width, channels) in [0, 1]."""
        box = {"y": slice(top, top + height), "x": slice(left, left + width), "c": slice(None)}
        array = self.arrays[level]
        try:
            pixels = np.asarray(array[tuple(box.get(axis, 0) for axis in self.axes)])
        except Exception as error:  # codecs raise almost anything on broken chunks
            raise UserError(
                f"the pixels at ({left}, {top}) are broken: {one_line(error, 120)}"
            ) from None
        axes = [axis for axis in self.axes if axis in box]
        if "c" not in axes:
            pixels, axes = pixels[..., None], [*axes, "c"]
        pixels = pixels.transpose([axes.index(axis) for axis in "yxc"])
        return as_fractions(pixels, bits=8 * array.dtype.itemsize)


def _store(path: Path) -> "LocalStore":
    """Return a store for a folder that reads only regular files of bounded size."""
    from zarr.storage import LocalStore

    class RegularFiles(LocalStore):
        async def get(self, key: str, *args: Any, **options: Any) -> Any:
            self._check_file(key)
            return await super().get(key, *args, **options)

        def get_sync(self, key: str, *args: Any, **options: Any) -> Any:
            self._check_file(key)
            return super().get_sync(key, *args, **options)

        def _check_file(self, key: str) -> None:
            # If the file does not exist, the store treats it as a missing chunk.
            with suppress(OSError):
                check_regular(self.root / key)

    return RegularFiles(path, read_only=True)


def _arrays_and_axes(node: Any) -> tuple[list["Array[Any]"], str]:
    """Return the arrays of an image and their axes.

    Args:
        node: an opened zarr array or group.

    Returns:
        An array for each level, the finest first, and a string with a letter for each axis.
    """
    import zarr

    if isinstance(node, zarr.Array):
        return [node], _plain_axes(node.shape)
    attributes = dict(node.attrs)
    multiscales = attributes.get("ome", attributes).get("multiscales")
    if not multiscales:
        raise UserError("the zarr group is not an OME-Zarr image: it has no multiscales")
    image = multiscales[0]  # a group may describe several images
    arrays = [node[dataset["path"]] for dataset in image["datasets"]]
    axis_list = image.get("axes") or list("tczyx")[-len(arrays[0].shape) :]
    axes = "".join(  # the first letter of each name
        (axis if isinstance(axis, str) else axis["name"])[0].lower() for axis in axis_list
    )
    if not set("yx") <= set(axes) or len(axes) != len(arrays[0].shape):
        raise UserError(f"unsupported axes {axes}: expected y, x and perhaps c")
    for axis in set(axes) - set("cyx"):
        if _length(arrays[0].shape, axes, axis, default=1) != 1:
            raise UserError(f"contains a stack of images (axes {axes}): store one image per file")
    return arrays, axes


def _plain_axes(shape: tuple[int, ...]) -> str:
    """Return a letter for each axis of an array without metadata, inferred from its shape."""
    if len(shape) == 2:
        return "yx"
    if len(shape) == 3 and shape[2] in (1, 3):
        return "yxc"
    if len(shape) == 3 and shape[0] in (1, 3):
        return "cyx"
    raise UserError(f"expected an array (H, W), (H, W, C) or (C, H, W), but got {shape}")


def _length(shape: tuple[int, ...], axes: str, axis: str, default: int) -> int:
    """Return the length of an axis, or `default` if the array does not have it."""
    return shape[axes.index(axis)] if axis in axes else default


def _height_width(shape: tuple[int, ...], axes: str) -> tuple[int, int]:
    return _length(shape, axes, "y", default=1), _length(shape, axes, "x", default=1)


def _check_array(array: "Array[Any]") -> None:
    """Raise UserError if an array has unsupported pixels or codecs."""
    if array.dtype.kind not in "buf":  # booleans, unsigned integers, floats
        raise UserError(f"unsupported pixels of {array.dtype}: store unsigned integers")
    for name in _codecs(array.metadata.to_dict()):
        codec = name.lower().removeprefix("numcodecs.")
        if codec not in CODECS:
            raise UserError(f"unsupported codec {name!r}: store it with blosc or zstd")


def _codecs(values: Mapping[str, object]) -> list[str]:
    """Return the names of all codecs in an array's metadata, including nested codecs."""
    names: list[str] = []
    for key in ("codecs", "index_codecs", "filters", "compressor"):
        inner = values.get(key)
        for codec in inner if isinstance(inner, list | tuple) else [inner]:
            if isinstance(codec, dict):
                names.append(str(codec.get("name") or codec.get("id")))
                names += _codecs(codec.get("configuration") or {})
    return names
