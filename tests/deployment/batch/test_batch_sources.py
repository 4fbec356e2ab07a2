"""Sources of a batch prediction: the order of their images, kinds of sources, skipped files."""

import io
import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from foveal.datasets import load_images
from foveal.deployment.batch.listing import Listing, write_listing
from foveal.foundation.errors import UserError
from foveal.images.formats import Skipped
from foveal.images.reading import decode
from foveal.images.sources import Item, list_items, sources_of


def png(value: int = 0) -> bytes:
    """Return the file of a grey image of 4x4 pixels with one value."""
    file = io.BytesIO()
    Image.new("L", (4, 4), value).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images at any depth, hidden files and a text file."""
    base = tmp_path / "photos"
    for name in ("b.png", "a.JPG", "deep/er/z.png", "deep/y.png", ".hidden.png", ".git/x.png"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(png())
    (base / "notes.txt").write_text("not an image")
    return base


def write_parquet(path: Path, values: list[int], **options) -> None:
    """Write a Parquet file whose rows are PNGs of given grey values."""
    cells = [{"bytes": png(value), "path": None} for value in values]
    pq.write_table(pa.table({"image": cells, "label": values}), path, **options)


def names(source: str | Path) -> list[str]:
    """Return the names of all images of a source, in order."""
    return [item.name for item in list_items(str(source))]


def test_a_folder_is_listed_recursively_in_a_fixed_order(folder):
    listed = [os.path.relpath(name, folder) for name in names(folder)]
    assert listed == ["a.JPG", "b.png", "deep/y.png", "deep/er/z.png"]


def test_globs_match_relative_and_absolute_paths(folder, monkeypatch):
    assert names(folder / "*.png") == [str(folder / "b.png")]
    recursive = [str(folder / name) for name in ("b.png", "deep/y.png", "deep/er/z.png")]
    assert names(folder / "**/*.png") == recursive
    monkeypatch.chdir(folder)
    assert names("**/*.png") == ["b.png", "deep/y.png", "deep/er/z.png"]
    assert names("./deep/*.png") == ["deep/y.png"]
    assert names("dee?/y.png") == ["deep/y.png"]


def test_a_folder_whose_name_looks_like_a_glob_is_a_folder(folder):
    renamed = folder.rename(folder.with_name("photos [2]"))
    assert len(names(renamed)) == 4


def test_a_link_to_a_folder_is_not_followed_and_a_broken_link_is_an_image(folder):
    (folder / "again").symlink_to(folder)
    (folder / "gone.png").symlink_to(folder / "nothing")
    assert [os.path.basename(name) for name in names(folder)][:3] == ["a.JPG", "b.png", "gone.png"]
    assert len(names(folder)) == 5


def test_a_url_is_listed_like_a_folder_and_its_files_can_be_read(folder):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/bucket/photos", recursive=True)
    listed = names("memory://bucket/photos")
    assert [name.removeprefix("memory:///bucket/photos/") for name in listed] == [
        "a.JPG", "b.png", "deep/y.png", "deep/er/z.png",
    ]  # fmt: skip
    assert names("memory://bucket/photos/**/*.png") == listed[1:]
    assert names("memory://bucket/photos/b.png") == [listed[1]]
    items = list(list_items("memory://bucket/photos"))
    assert [read() for _, read in sources_of(items)] == [png()] * 4


def test_parquet_rows_are_images_and_tables_without_images_are_skipped(folder):
    write_parquet(folder / "deep" / "s.parquet", list(range(5)), row_group_size=2)
    pq.write_table(pa.table({"label": [1]}), folder / "labels.parquet")
    rows = [f"{folder}/deep/s.parquet#{row}" for row in range(5)]
    assert names(folder)[2:7] == rows
    assert names(folder / "deep" / "s.parquet") == rows
    with pytest.raises(UserError, match=r"expected a column of images .* but got label"):
        names(folder / "labels.parquet")


def test_any_range_of_the_rows_of_a_parquet_file_is_read_in_order(tmp_path):
    write_parquet(tmp_path / "s.parquet", list(range(200)), row_group_size=70)
    for start, stop in ((0, 200), (3, 4), (69, 141), (150, 200)):
        items = [Item(str(tmp_path / "s.parquet"), row) for row in range(start, stop)]
        contents = [(name, read()) for name, read in sources_of(items)]
        assert contents == [(item.name, png(item.row)) for item in items]


def test_a_shortened_or_damaged_parquet_file_gives_an_error_per_missing_row(tmp_path):
    path = tmp_path / "s.parquet"
    write_parquet(path, list(range(10)))
    items = list(list_items(str(path)))
    write_parquet(path, list(range(4)))
    reads = [read for _, read in sources_of(items)]
    assert [read() for read in reads[:4]] == [png(value) for value in range(4)]
    for read in reads[4:]:
        with pytest.raises(UserError, match="the row no longer exists"):
            read()
    path.write_bytes(b"PAR1 broken")
    for _, read in sources_of(items):
        with pytest.raises(UserError, match="cannot be read"):
            read()
    [(_, read)] = sources_of(list(list_items(str(path))))
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere does not exist"),
        ("nowhere/*.png", "The folder nowhere of the glob nowhere/.* does not exist"),
        ("memory://nowhere", "memory://nowhere does not exist"),
        ("gopher://host/x", "gopher"),
        ("hf:name", "Expected hf:OWNER/NAME"),
    ],
)
def test_a_missing_source_is_a_one_line_error(source, message):
    with pytest.raises(UserError, match=message) as error:
        names(source)
    assert "\n" not in str(error.value)


def test_a_listing_is_split_into_shards_and_its_digest_depends_on_the_names(tmp_path):
    items = [
        *(Item(f"{index}.png") for index in range(5)),
        *(Item("s.parquet", row) for row in range(4)),
    ]
    digest = write_listing(iter(items), tmp_path / "l.parquet", 4)
    listing = Listing.open(tmp_path / "l.parquet")
    assert listing.counts == (4, 4, 1)
    assert [item for shard in range(3) for item in listing.items(shard)] == items
    assert len(listing) == 9
    assert digest == write_listing(items, tmp_path / "m.parquet", 2)
    assert digest != write_listing(items[1:], tmp_path / "m.parquet", 2)


# Cells of a Parquet file that hold a path instead of an image: test name, type, function of a path.
PATH_CELLS = [
    ("string", pa.string(), lambda path: path),
    ("string in bytes", pa.struct([("bytes", pa.string()), ("path", pa.string())]),
     lambda path: {"bytes": path, "path": None}),
    ("path without bytes", pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
     lambda path: {"bytes": None, "path": path}),
    ("path column only", pa.struct([("path", pa.string())]), lambda path: {"path": path}),
    ("url", pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
     lambda path: {"bytes": None, "path": f"file://{path}"}),
    ("path as bytes", pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
     lambda path: {"bytes": path.encode(), "path": path}),
    ("list", pa.list_(pa.string()), lambda path: [path]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cell_type", "make_cell"),
    [(cell_type, make_cell) for _, cell_type, make_cell in PATH_CELLS],
    ids=[name for name, _, _ in PATH_CELLS],
)
def test_a_path_in_a_table_is_never_opened(cell_type, make_cell, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(77))
    table = tmp_path / "data" / "train.parquet"
    table.parent.mkdir()
    cells = pa.array([make_cell(str(secret))] * 6, cell_type)
    pq.write_table(pa.table({"image": cells, "label": [0, 1] * 3}), table)
    for _, read in sources_of(list(list_items(str(table)))):
        try:
            content = read()
        except UserError:
            continue
        assert content == str(secret).encode()  # the path itself, not the file
        with pytest.raises(UserError, match="not an image"):
            decode(content, None, None)
    with pytest.raises(UserError):
        load_images(table.parent, "train")


def test_an_object_named_like_chained_urls_is_read_from_its_store(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(77))
    memory = fsspec.filesystem("memory")
    name = f"/chained/a::{tmp_path}/secret.png"  # fsspec would read this chain as that local file
    memory.pipe(name, png(5))
    [(path, read)] = sources_of(list(list_items("memory://chained")))
    assert path == f"memory://{name}"
    assert read() == png(5)


@pytest.mark.parametrize("source", ["simplecache::file:///tmp", "zip://*.png::file:///tmp/a.zip"])
def test_chained_urls_are_refused_as_a_source(source):
    with pytest.raises(UserError, match="chained by :: are not supported"):
        names(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
@pytest.mark.parametrize("prefix", ["", "file://", "local://"])
def test_special_files_are_rows_with_an_error(prefix, folder):
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe.parquet")
    os.mkfifo(folder / "pipe")
    (folder / "endless.png").symlink_to("/dev/zero")
    errors = {}
    for name, read in sources_of(list(list_items(f"{prefix}{folder}"))):
        try:
            assert read() == png()
        except UserError as error:
            errors[os.path.basename(name)] = str(error)
    assert errors == {
        "pipe.png": "not a regular file",
        "endless.png": "not a regular file",
        "pipe.parquet": "not a readable Parquet file",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_a_special_file_as_the_source_is_a_row_with_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (str(tmp_path / "pipe"), "/dev/zero"):
        [(path, read)] = sources_of(list(list_items(name)))
        assert path == name
        with pytest.raises(UserError, match="not a regular file"):
            read()


def test_a_file_above_the_size_limit_is_not_read(tmp_path, monkeypatch):
    from foveal.images import stores

    monkeypatch.setattr(stores, "MAX_BYTES", 100)
    (tmp_path / "a.png").write_bytes(bytes(101))
    fsspec.filesystem("memory").pipe("/large/a.png", bytes(101))
    for source in (str(tmp_path / "a.png"), "memory://large/a.png", f"file://{tmp_path}/a.png"):
        [(_, read)] = sources_of(list(list_items(source)))
        with pytest.raises(UserError, match="larger than 100 bytes"):
            read()


def test_images_without_an_extension_are_listed(folder):
    (folder / "deep" / "0a1b").write_bytes(png())
    (folder / "deep" / "0a1c").write_text("words")
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/nameless/photos", recursive=True)
    for source in (str(folder), "memory://nameless/photos", f"file://{folder}"):
        skipped = Skipped()
        listed = [os.path.basename(item.path) for item in list_items(source, skipped)]
        assert listed == ["a.JPG", "b.png", "0a1b", "y.png", "z.png"]
        assert dict(skipped.by_extension) == {"hidden": 1, ".txt": 1, "": 1}
