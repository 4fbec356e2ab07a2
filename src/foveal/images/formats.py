"""Image formats, recognised by extension, or else by the first bytes. Needs no PyTorch.

The head of a file is its first `HEAD_BYTES` bytes.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from PIL import Image

from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.foundation.files import open_regular


class Format(NamedTuple):
    """An image format.

    Attributes:
        extensions: file extensions, in lower case.
        signature: a regular expression for the first bytes; empty if they are not distinctive.
        hint: advice for the user if this installation cannot read the format.
    """

    extensions: tuple[str, ...]
    signature: bytes = b""
    hint: str = ""


# Formats by Pillow's names, in the order in which they are tried. Some of Pillow's formats are
# excluded: it passes EPS and WMF to another program, only identifies HDF5 and MPEG, and ignores the
# scale of the values in FITS.
FORMATS = {
    "JPEG": Format((".jpg", ".jpeg", ".jpe", ".jfif"), rb"\xff\xd8\xff"),
    "PNG": Format((".png", ".apng"), rb"\x89PNG\r\n\x1a\n"),
    "WEBP": Format((".webp",), rb"RIFF....WEBP"),
    "TIFF": Format((".tif", ".tiff"), rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),
    "BMP": Format((".bmp", ".dib"), rb"BM....\0\0\0\0"),
    "GIF": Format((".gif",), rb"GIF8[79]a"),
    "MPO": Format((".mpo",)),
    "PPM": Format((".pbm", ".pgm", ".pnm", ".ppm", ".pfm"), rb"P[1-6]\s+[#0-9]|P[fF]\s"),
    "AVIF": Format(
        (".avif", ".avifs"), rb"....ftypavi[fs]", "AVIF needs a Pillow of 11.3 or later with AVIF"
    ),
    "HEIF": Format(
        (".heic", ".heif", ".hif"),
        rb"....ftyp(?:hei[cmsx]|hev[cx]|mif1|msf1)",
        "HEIC needs pillow-heif: pip install pillow-heif, or convert it to JPEG",
    ),
    "JPEG2000": Format(
        (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
        rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n",
        "JPEG 2000 needs a Pillow with OpenJPEG",
    ),
    "JXL": Format(
        (".jxl",), rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL: convert it to PNG or JPEG"
    ),
    "PSD": Format((".psd",), rb"8BPS\0\x01"),
    "QOI": Format((".qoi",), rb"qoif"),
    "DDS": Format((".dds",), rb"DDS \x7c\0\0\0"),
    "SGI": Format((".sgi",), rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]"),
    "ICO": Format((".ico",)),
    "PCX": Format((".pcx",)),
    "SUN": Format((".ras",), rb"\x59\xa6\x6a\x95"),
    "XBM": Format((".xbm",)),
    "XPM": Format((".xpm",), rb"/\* XPM \*/"),
    "TGA": Format((".tga", ".icb", ".vda", ".vst")),  # last: it has no signature
}
EXTENSIONS = frozenset(
    extension for image_format in FORMATS.values() for extension in image_format.extensions
)
HEAD_BYTES = 32  # number of first bytes of a file by which its format is recognised
_MAX_KINDS = 4  # kinds of skipped files listed in a message

# Extensions of files that are not readable images; such files are never opened.
_CAMERA_RAW_TEXT = ".3fr .arw .cr2 .cr3 .dng .erf .nef .nrw .orf .pef .raf .raw .rw2 .srw"
_NOT_IMAGES_TEXT = """
    .7z .ai .avi .bin .bz2 .c .cfg .ckpt .cpp .css .csv .db .dcm .doc .docx .eps .exe .fit .fits
    .flac .gz .h .h5 .hdf .hdf5 .htm .html .ini .ipynb .java .js .json .jsonl .lnk .lock .log .m4a
    .m4v .mat .md .mkv .mov .mp3 .mp4 .mpeg .mpg .ndjson .npy .npz .odt .onnx .parquet .pdf .pickle
    .pkl .ppt .pptx .ps .pt .pth .py .pyc .rar .rst .rtf .safetensors .sh .sqlite .svg .tar .tex
    .tgz .toml .tsv .txt .url .wav .webm .wmf .xls .xlsx .xml .xmp .xz .yaml .yml .zip .zst
"""
_CAMERA_RAW = frozenset(_CAMERA_RAW_TEXT.split())
_NOT_IMAGES = _CAMERA_RAW.union(_NOT_IMAGES_TEXT.split())
_SIGNATURES = re.compile(
    b"|".join(
        b"(?P<%s>%s)" % (name.encode(), image_format.signature)
        for name, image_format in FORMATS.items()
        if image_format.signature
    ),
    re.DOTALL,
)
OnSkipped = Callable[[str], object]  # called with the path of each file that is skipped
ReadHeads = Callable[[Sequence[str]], Sequence[bytes]]  # returns the head of each of some files


@cache
def readable_formats() -> tuple[str, ...]:
    """Return Pillow's names of those `FORMATS` that this installation can read."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def format_of(head: bytes) -> str | None:
    """Return the name in `FORMATS` of the format of a file with these first bytes, or None."""
    match = _SIGNATURES.match(head)
    return match.lastgroup if match else None


def unreadable_reason(head: bytes) -> str:
    """Return why a file with these first bytes cannot be read; messages print it after the path."""
    name = format_of(head)
    hint = FORMATS[name].hint if name else ""
    return f"cannot be read: {hint}" if hint else "not an image of a supported format"


def local_heads(paths: Sequence[str]) -> list[bytes]:
    """Return the first bytes of each of some local files; empty for unreadable files."""
    return [_head(path) for path in paths]


def _head(path: str) -> bytes:
    with suppress(OSError, UserError), open_regular(path) as file:
        return file.read(HEAD_BYTES)
    return b""


def images_among(
    paths: Iterable[str],
    read_heads: ReadHeads,
    on_skipped: OnSkipped,
    extensions: Container[str] = (),
) -> set[str]:
    """Return the paths of the files that are images.

    A file with an extension in `FORMATS` is an image regardless of its content, so that users get
    an error if it cannot be read. A file is opened only if its extension is unknown. Hidden files
    are skipped.

    Args:
        paths: local paths or URLs.
        read_heads: returns the first bytes of each of the files that it is called with.
        on_skipped: called with the path of each file that is not an image.
        extensions: further extensions of images, in lower case.
    """
    images: set[str] = set()
    unrecognised = []
    for path in paths:
        _, _, name = path.rpartition("/")
        extension = os.path.splitext(name)[1].lower()  # with its dot
        if name.startswith("."):
            on_skipped(path)
        elif extension in EXTENSIONS or extension in extensions:
            images.add(path)
        elif extension in _NOT_IMAGES:
            on_skipped(path)
        else:
            unrecognised.append(path)
    heads = read_heads(unrecognised) if unrecognised else ()
    for path, head in zip(unrecognised, heads, strict=True):
        if format_of(head):
            images.add(path)
        else:
            on_skipped(path)
    return images


class Skipped:
    """Counts, by extension, of files that were skipped because they are not images.

    `str` returns a sentence for the user, and `len` the number of files.

    Args:
        paths: files to count from the start.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self.by_extension: Counter[str] = Counter()
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        """Count one more file."""
        _, _, name = path.rpartition("/")
        extension = os.path.splitext(name)[1].lower()
        self.by_extension["hidden" if name.startswith(".") else extension] += 1

    def __len__(self) -> int:
        return self.by_extension.total()

    def __str__(self) -> str:
        # Ties are sorted by name, because the order of the files is arbitrary.
        counts = sorted(self.by_extension.items(), key=lambda item: (-item[1], item[0]))
        descriptions = [
            f"{count:,} {_description(extension)}" for extension, count in counts[:_MAX_KINDS]
        ]
        if len(counts) > _MAX_KINDS:
            descriptions.append(f"{len(counts) - _MAX_KINDS} other kinds")
        word = "file" if len(self) == 1 else "files"
        return f"{len(self):,} non-image {word} skipped: {', '.join(descriptions)}"


def _description(extension: str) -> str:
    """Return an extension as messages print it, with advice for camera raw files."""
    if extension in _CAMERA_RAW:
        return f"{extension} (camera raw is not supported: convert it to TIFF or JPEG)"
    return printable(extension)[:20] or "without extension"
