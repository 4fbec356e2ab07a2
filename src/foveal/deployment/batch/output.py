"""The output of a run: one file per shard, written atomically, and a manifest.

The manifest records the settings of the run and its images, so that an interrupted run can be
resumed with the same settings.
"""

import errno
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from foveal.deployment.batch.rows import SCHEMA
from foveal.foundation.errors import UserError
from foveal.foundation.files import json_text, parse_json, read_json
from foveal.foundation.interrupts import deferred_signals

# Readers of Parquet folders skip names that begin with an underscore.
_MANIFEST, _LISTING, _LOCK, _PICTURES = "_manifest.json", "_listing.parquet", "_lock", "_pictures"
_KEY = b"foveal"  # metadata key in each Parquet file
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # space, quota or file size exhausted


@dataclass(frozen=True)
class Tally:
    """Numbers of images, in one shard or in several."""

    images: int = 0  # all images
    errors: int = 0  # images that could not be read
    resized: int = 0  # images that were resized to the model's size
    noted: int = 0  # images with a note on how they were read

    def __add__(self, other: "Tally") -> "Tally":
        names = [field.name for field in fields(self)]
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in names})


class Output:
    """A folder of Parquet shards, or one Parquet file into which shards are merged at the end.

    Args:
        out: a folder, or a file whose name ends in `.parquet`; its shards are kept next to it
            in `NAME.parquet.partial` until it is complete.
    """

    def __init__(self, out: Path):
        self.out = out
        self.one_file = out.suffix == ".parquet"
        self.folder = out.with_name(out.name + ".partial") if self.one_file else out
        self.listing = self.folder / _LISTING
        self.pictures = out.with_name(out.stem + _PICTURES) if self.one_file else out / _PICTURES

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the output while the block runs.

        Raises:
            UserError: another run has locked the output, or it cannot be written to.
        """
        import fcntl

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / _LOCK).open("a+")
        except OSError as error:
            raise UserError(f"Cannot write to {self.out}: {error.strerror or error}.") from None
        with lock:
            try:
                # The system releases the lock if the process dies.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                raise UserError(
                    f"{self.out} is being written by another run ({lock.read().strip()}): wait "
                    "for it, or give another --out."
                ) from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
            try:
                yield
            finally:
                self._clean_up()

    def _clean_up(self) -> None:
        """Remove the lock and the listing, if the run failed before its manifest was written."""
        if not (self.folder / _MANIFEST).exists() and self.folder.is_dir():
            for name in (_LOCK, _LISTING, _LISTING + ".partial"):
                (self.folder / name).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def manifest(self) -> dict[str, object] | None:
        """Return the manifest of the run in this output, or None if there is none.

        Raises:
            UserError: the output holds other files.
        """
        if self.one_file and self.out.exists():
            return self._manifest_of_file()
        path = self.folder / _MANIFEST
        if path.exists():
            manifest = read_json(path)
            if not isinstance(manifest, dict):
                raise UserError(f"Cannot read {path}: expected a JSON object.")
            return manifest
        known_names = (_LOCK, _LISTING, _LISTING + ".partial")
        names = sorted(path.name for path in self.folder.iterdir())
        other_names = [name for name in names if name not in known_names]
        if other_names:
            raise UserError(f"{self.out} holds other files ({other_names[0]}): give another --out.")
        return None

    def is_empty(self) -> bool:
        """Return whether no shard is finished yet."""
        return not self.out.is_file() and not any(self.folder.glob("part-*.parquet"))

    def _manifest_of_file(self) -> dict[str, object]:
        try:
            metadata = parse_json((pq.read_schema(self.out).metadata or {})[_KEY])
            return dict(metadata["manifest"])
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            raise UserError(
                f"{self.out} was not written by foveal predict: give another --out."
            ) from None

    def tally_of_file(self) -> Tally:
        """Return the tally of the single file of a finished run."""
        return _read_tally(self.out) or Tally()

    def begin(self, manifest: Mapping[str, object]) -> None:
        """Write the manifest, from which the run can be resumed."""
        path = self.folder / _MANIFEST
        with self.writing(path) as partial:
            partial.write_text(json_text(manifest, indent=2) + "\n", encoding="utf-8")

    def shard_path(self, shard: int, shard_count: int) -> Path:
        """Return the path of the file of shard number `shard`, from 0."""
        return self.folder / f"part-{shard:05d}-of-{shard_count:05d}.parquet"

    def finished_tallies(self, counts: tuple[int, ...]) -> dict[int, Tally]:
        """Delete partial files, and return the tallies of the finished shards by index.

        Args:
            counts: number of images in each shard.
        """
        for partial in self.folder.glob("*.partial"):
            partial.unlink()
        tallies = {}
        for shard, count in enumerate(counts):
            tally = _read_tally(self.shard_path(shard, len(counts)))
            if tally is not None and tally.images == count:
                tallies[shard] = tally
        return tallies

    def write(
        self,
        shard: int,
        shard_count: int,
        rows: pa.Table,
        pictures: Mapping[int, bytes],
        manifest: Mapping[str, object],
    ) -> Tally:
        """Write a shard and its pictures, and return its tally.

        Args:
            shard: index of the shard.
            shard_count: number of shards of the run.
            rows: one row per image of the shard.
            pictures: PNGs by the index of the row.
            manifest: manifest of the run, which is also stored in the file.

        Raises:
            UserError: the disk is full, or the file cannot be written.
        """
        if pictures:
            rows = self._with_pictures(shard, rows, pictures)
        errors = len(rows) - rows.column("error").null_count
        resized = rows.column("resized").to_pylist().count(True)
        noted = len(rows) - rows.column("note").null_count
        tally = Tally(len(rows), errors, resized, noted)
        path = self.shard_path(shard, shard_count)
        with self.writing(path) as partial:
            pq.write_table(_with_metadata(rows, manifest, tally), partial, compression="zstd")
        return tally

    def _with_pictures(self, shard: int, rows: pa.Table, pictures: Mapping[int, bytes]) -> pa.Table:
        """Write the pictures of a shard, and return its rows with their paths."""
        folder = self.pictures / f"{shard:05d}"
        paths: list[str | None] = [None] * len(rows)
        for index, picture in pictures.items():
            path = folder / f"{index:05d}.png"
            with self.writing(path) as partial:
                partial.write_bytes(picture)
            paths[index] = str(path.relative_to(self.out.parent if self.one_file else self.out))
        column = SCHEMA.get_field_index("picture")
        return rows.set_column(column, SCHEMA.field(column), pa.array(paths, pa.string()))

    def finish(self, counts: tuple[int, ...], manifest: Mapping[str, object], tally: Tally) -> None:
        """Finish a run: if the output is one file, merge the shards into it and delete them.

        Args:
            counts: number of images in each shard.
            manifest: manifest of the run, which is stored in the file.
            tally: tally of all shards, which is stored in the file.

        Raises:
            UserError: the disk is full, the file cannot be written, or another program has
                created a file at its path.
        """
        if not self.one_file:
            return
        merged = self.folder / "whole.parquet"
        schema = _with_metadata(SCHEMA.empty_table(), manifest, tally).schema
        with (
            self.writing(merged) as partial,
            pq.ParquetWriter(partial, schema, compression="zstd") as writer,
        ):
            for shard in range(len(counts)):
                # Without partitioning, a folder named key=value does not add a column.
                rows = pq.read_table(self.shard_path(shard, len(counts)), partitioning=None)
                writer.write_table(rows.replace_schema_metadata(schema.metadata))
        if self.out.exists():
            raise UserError(
                f"{self.out} was created by another program: the result is in {merged}."
            )
        os.replace(merged, self.out)
        shutil.rmtree(self.folder)

    @contextmanager
    def writing(self, path: Path) -> Iterator[Path]:
        """Yield a temporary path to write to; after the block, that file replaces `path`.

        Raises:
            UserError: the disk is full, or the file cannot be written.
        """
        partial = path.with_name(path.name + ".partial")
        try:
            with deferred_signals():
                path.parent.mkdir(parents=True, exist_ok=True)
                yield partial
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno in _DISK_FULL:
                raise UserError(
                    f"The disk is full: {path} was not written. Finished shards are kept; free "
                    "some space and run the same command with --resume."
                ) from None
            raise UserError(f"Cannot write {path}: {error.strerror or error}.") from None


def _with_metadata(rows: pa.Table, manifest: Mapping[str, object], tally: Tally) -> pa.Table:
    """Return rows with the manifest and their tally in the metadata of the schema."""
    metadata = json_text({"manifest": manifest, "tally": vars(tally)})
    return rows.replace_schema_metadata({_KEY: metadata.encode()})


def _read_tally(path: Path) -> Tally | None:
    """Return the tally in a file of rows, or None if the file is missing or damaged."""
    try:
        return Tally(**parse_json((pq.read_schema(path).metadata or {})[_KEY])["tally"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
