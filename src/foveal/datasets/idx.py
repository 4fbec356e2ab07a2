"""Images and labels in idx files, the format of MNIST and Fashion-MNIST."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foveal.datasets.download import fetch
from foveal.foundation.errors import UserError
from foveal.foundation.files import open_regular, read_bytes

_MD5 = {
    "MNIST": {
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}
MAX_BYTES = 2**30  # maximum per decompressed file; the largest of MNIST has 47 million
# An idx file of uint8 values begins with the sum of this and its number of dimensions.
UINT8_MAGIC = 0x0800


def read_pair(data_dir: Path, folder: str, split: str) -> tuple[Tensor, Tensor]:
    """Return the images (N, 1, H, W) and labels (N,) of a split, from `data_dir/folder/raw`.

    Raises:
        UserError: a file is missing and cannot be downloaded, or is damaged.
    """
    prefix = "t10k" if split == "test" else "train"
    images = _read_idx(data_dir, folder, f"{prefix}-images-idx3-ubyte", 3)
    labels = _read_idx(data_dir, folder, f"{prefix}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise UserError(f"{data_dir / folder}: {len(images)} images but {len(labels)} labels.")
    if len(labels) and int(labels.max()) > 9:
        raise UserError(f"{data_dir / folder}: expected labels from 0 to 9.")
    return images[:, None], labels.long()


def _read_idx(data_dir: Path, folder: str, name: str, dims: int) -> Tensor:
    """Return the values of an idx file as uint8, downloading it if it is missing."""
    path = data_dir / folder / "raw" / name
    compressed = path.with_name(name + ".gz")
    if not path.is_file() and not compressed.is_file():
        hint = f"put {name} (or {name}.gz) into {path.parent}/"
        fetch(f"{folder}/{name}", compressed, _MD5[folder][name], hint)
    try:
        raw = read_bytes(path, MAX_BYTES) if path.is_file() else _decompress(compressed)
    except (OSError, EOFError, zlib.error, UserError) as error:
        raise UserError(f"Cannot read {path}: {error}") from None
    # The header has a number of the type and dimensions, and one for the length of each dimension.
    header_bytes = 4 + 4 * dims
    if len(raw) < header_bytes:
        raise UserError(f"{path} is truncated within its header.")
    magic, *shape = np.frombuffer(raw[:header_bytes], ">i4").tolist()
    if magic != UINT8_MAGIC + dims:
        raise UserError(f"{path} is not an idx file of {dims} dimensions.")
    if min(shape) < 0 or len(raw) - header_bytes != math.prod(shape):
        raise UserError(f"{path} is truncated: its header declares the shape {shape}.")
    body = np.frombuffer(raw, np.uint8, offset=header_bytes)
    return torch.from_numpy(body.reshape(shape).copy())


def _decompress(path: Path) -> bytes:
    """Return the decompressed content of a gzip file, of at most `MAX_BYTES`."""
    with open_regular(path) as file, gzip.open(file) as decompressed:
        content = decompressed.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"larger than {MAX_BYTES:,} bytes")
    return content
