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
TIMEOUT = 20  # seconds without a response
MAX_BYTES = 2**30  # per download; the largest here has 170 million


def fetch(what: str, path: Path, md5: str, hint: str) -> None:
    """Download `DATASET/name` to `path`, which is written only if the download is complete.

    Args:
        what: dataset and file, such as `MNIST/train-images-idx3-ubyte`.
        path: file to write.
        md5: expected checksum.
        hint: instructions for a manual download, for error messages.

    Raises:
        UserError: the mirror cannot be reached, or the checksum differs.
    """
    dataset, _, name = what.partition("/")
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = _download(MIRRORS[dataset].format(name=name), partial, what)
    except (OSError, http.client.HTTPException) as error:
        with contextlib.suppress(OSError):  # it may not exist, or the folder is read-only
            partial.unlink()
        reason = getattr(error, "reason", error)
        raise UserError(f"Cannot download {what} ({reason}): {hint}, or set FOVEAL_DATA.") from None
    if digest != md5:
        partial.unlink()
        raise UserError(f"The download of {what} is not the published file: {hint}.")
    os.replace(partial, path)


def _download(url: str, path: Path, what: str) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, path.open("wb") as file:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() and len(length) < 20 else 0
        while chunk := response.read(1 << 18):
            if file.tell() + len(chunk) > MAX_BYTES:
                raise OSError(f"the file is larger than {MAX_BYTES:,} bytes")
            digest.update(chunk)
            file.write(chunk)
            progress = f"{file.tell() / total:4.0%}" if total else f"{file.tell() >> 20} MB"
            print(f"\rdownloading {what} {progress}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return digest.hexdigest()
