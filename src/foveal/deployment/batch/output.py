"""Output of a run: shards that are written atomically, and a manifest to resume from."""

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
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Tally:
    """Numbers of images: all, unreadable, resized, and with a note."""

    images: int = 0
    errors: int = 0
    resized: int = 0
    noted: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


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
            UserError: another run has locked it, or it cannot be written to.
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
        """Remove the files of a run that has not begun."""
        if not (self.folder / _MANIFEST).exists() and self.folder.is_dir():
            for name in (_LOCK, _LISTING, _LISTING + ".partial"):
                (self.folder / name).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def manifest(self) -> dict[str, object] | None:
        """Return the manifest of the run in this output, or None if there is none.

        Raises:
            UserError: the output holds something else.
        """
        if self.one_file and self.out.exists():
            return self._manifest_of_file()
        path = self.folder / _MANIFEST
        if path.exists():
            manifest = read_json(path)
            if not isinstance(manifest, dict):
                raise UserError(f"Cannot read {path}: expected a JSON object.")
            return manifest
        own_files = (_LOCK, _LISTING, _LISTING + ".partial")
        others = sorted(p.name for p in self.folder.iterdir() if p.name not in own_files)
        if others:
            raise UserError(f"{self.out} holds other files ({others[0]}): give another --out.")
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
        return _tally(self.out) or Tally()

    def begin(self, manifest: Mapping[str, object]) -> None:
        """Write the manifest, from which the run can be resumed."""
        path = self.folder / _MANIFEST
        with self.writing(path) as partial:
            partial.write_text(json_text(manifest, indent=2) + "\n", encoding="utf-8")

    def part(self, shard: int, shards: int) -> Path:
        """Return the path of a shard."""
        return self.folder / f"part-{shard:05d}-of-{shards:05d}.parquet"

    def finished_tallies(self, counts: tuple[int, ...]) -> dict[int, Tally]:
        """Return the tallies of the finished shards; delete partial files.

        Args:
            counts: number of images in each shard.
        """
        for partial in self.folder.glob("*.partial"):
            partial.unlink()
        tallies = {}
        for shard, count in enumerate(counts):
            tally = _tally(self.part(shard, len(counts)))
            if tally is not None and tally.images == count:
                tallies[shard] = tally
        return tallies

    def write(
        self,
        shard: int,
        shards: int,
        rows: pa.Table,
        pictures: Mapping[int, bytes],
        manifest: Mapping[str, object],
    ) -> Tally:
        """Write a shard and its pictures.

        Args:
            shard: index of the shard.
            shards: number of shards.
            rows: rows of its images.
            pictures: PNGs by row index.
            manifest: manifest of the run, stored in the file too.

        Raises:
            UserError: the disk is full, or the file cannot be written.
        """
        if pictures:
            rows = self._with_pictures(shard, rows, pictures)
        errors = len(rows) - rows.column("error").null_count
        resized = rows.column("resized").to_pylist().count(True)
        noted = len(rows) - rows.column("note").null_count
        tally = Tally(len(rows), errors, resized, noted)
        path = self.part(shard, shards)
        with self.writing(path) as partial:
            pq.write_table(_with_metadata(rows, manifest, tally), partial, compression="zstd")
        return tally

    def _with_pictures(self, shard: int, rows: pa.Table, pictures: Mapping[int, bytes]) -> pa.Table:
        folder = self.pictures / f"{shard:05d}"
        names: list[str | None] = [None] * len(rows)
        for index, picture in pictures.items():
            path = folder / f"{index:05d}.png"
            with self.writing(path) as partial:
                partial.write_bytes(picture)
            names[index] = str(path.relative_to(self.out.parent if self.one_file else self.out))
        column = SCHEMA.get_field_index("picture")
        return rows.set_column(column, SCHEMA.field(column), pa.array(names, pa.string()))

    def finish(self, counts: tuple[int, ...], manifest: Mapping[str, object], tally: Tally) -> None:
        """Merge the shards if the output is one file, and delete them.

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
                part = pq.read_table(self.part(shard, len(counts)), partitioning=None)
                writer.write_table(part.replace_schema_metadata(schema.metadata))
        if self.out.exists():
            raise UserError(
                f"{self.out} was created by another program: the result is in {merged}."
            )
        os.replace(merged, self.out)
        shutil.rmtree(self.folder)

    @contextmanager
    def writing(self, path: Path) -> Iterator[Path]:
        """Yield a temporary path to write to, which replaces `path` once it is on the disk."""
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
    metadata = json_text({"manifest": manifest, "tally": vars(tally)})
    return rows.replace_schema_metadata({_KEY: metadata.encode()})


def _tally(path: Path) -> Tally | None:
    """Return the tally of a shard, or None if there is no complete file."""
    try:
        return Tally(**parse_json((pq.read_schema(path).metadata or {})[_KEY])["tally"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
