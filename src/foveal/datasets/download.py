"""Download of datasets from public mirrors, verified by checksum."""

import contextlib
import hashlib
import http.client
import os
import sys
import urllib.request
from pathlib import Path

from foveal.foundation.errors import UserError

MIRRORS = {
    "MNIST": "https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz",
    "FashionMNIST": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}.gz",
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
}
TIMEOUT = 20  # seconds to wait for a response
MAX_BYTES = 2**30  # maximum per download; the largest of these files has 170 million
_CHUNK_BYTES = 2**18


def fetch(remote_file: str, path: Path, md5: str, hint: str) -> None:
    """Download a file of a dataset to `path`, where it appears only when it is complete.

    Args:
        remote_file: dataset and file name, such as `MNIST/train-images-idx3-ubyte`.
        path: file to write.
        md5: expected MD5 checksum of the file, in hexadecimal.
        hint: instructions for a manual download, for error messages.

    Raises:
        UserError: the mirror cannot be reached, or the checksum differs.
    """
    dataset, _, name = remote_file.partition("/")
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = _download(MIRRORS[dataset].format(name=name), partial, remote_file)
    except (OSError, http.client.HTTPException) as error:
        with contextlib.suppress(OSError):  # it may not exist, or the folder is read-only
            partial.unlink()
        reason = getattr(error, "reason", error)
        raise UserError(
            f"Cannot download {remote_file} ({reason}): {hint}, or set FOVEAL_DATA."
        ) from None
    if digest != md5:
        partial.unlink()
        raise UserError(f"The download of {remote_file} is not the published file: {hint}.")
    os.replace(partial, path)


def _download(url: str, path: Path, remote_file: str) -> str:
    """Download a URL to a file, with progress on stderr, and return its MD5 checksum."""
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, path.open("wb") as file:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and len(length) < 20 else 0
        while chunk := response.read(_CHUNK_BYTES):
            if file.tell() + len(chunk) > MAX_BYTES:
                raise OSError(f"the file is larger than {MAX_BYTES:,} bytes")
            digest.update(chunk)
            file.write(chunk)
            progress = f"{file.tell() / total:4.0%}" if total else f"{file.tell() >> 20} MB"
            print(f"\rdownloading {remote_file} {progress}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return digest.hexdigest()
