"""Where a run writes: shards, each whole or not at all, and what a resumed run must know."""

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
from foveal.foundation.interrupts import held_back

# Readers of folders of Parquet pass over what begins with an underscore.
_MANIFEST, _LISTING, _LOCK, _PICTURES = "_manifest.json", "_listing.parquet", "_lock", "_pictures"
_KEY = b"foveal"  # in the metadata of each Parquet file
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Tally:
    """Images, those that could not be read, had another size, or have a note."""

    images: int = 0
    errors: int = 0
    resized: int = 0
    noted: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Output:
    """A folder of Parquet shards, or one Parquet file that shards become at the end.

    Args:
        out: a folder, or a file whose name ends in `.parquet`; its shards lie beside it in
            `NAME.parquet.partial` until it is whole.
    """

    def __init__(self, out: Path):
        self.out = out
        self.one_file = out.suffix == ".parquet"
        self.folder = out.with_name(out.name + ".partial") if self.one_file else out
        self.listing = self.folder / _LISTING
        self.pictures = out.with_name(out.stem + _PICTURES) if self.one_file else out / _PICTURES

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the output while the block runs.

        Raises:
            UserError: another run holds it, or it cannot be written to.
        """
        import fcntl

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / _LOCK).open("a+")
        except OSError as error:
            raise UserError(f"Cannot write to {self.out}: {error.strerror or error}.") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system frees it if we die
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
                self._leave()

    def _leave(self) -> None:
        """Take away what is of no use to a later run."""
        if not (self.folder / _MANIFEST).exists() and self.folder.is_dir():
            for name in (_LOCK, _LISTING, _LISTING + ".partial"):
                (self.folder / name).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def manifest(self) -> dict[str, object] | None:
        """Return what a run has said of itself, or None where there was none.

        Raises:
            UserError: there is something else.
        """
        if self.one_file and self.out.exists():
            return self._of_file()
        path = self.folder / _MANIFEST
        if path.exists():
            found = read_json(path)
            if not isinstance(found, dict):
                raise UserError(f"Cannot read {path}: expected a JSON object.")
            return found
        own = (_LOCK, _LISTING, _LISTING + ".partial")
        other = sorted(p.name for p in self.folder.iterdir() if p.name not in own)
        if other:
            raise UserError(f"{self.out} holds something else ({other[0]}): give another --out.")
        return None

    def is_empty(self) -> bool:
        """Return whether a run was begun here that has not finished a shard."""
        return not self.out.is_file() and not any(self.folder.glob("part-*.parquet"))

    def _of_file(self) -> dict[str, object]:
        try:
            found = parse_json((pq.read_schema(self.out).metadata or {})[_KEY])
            return dict(found["manifest"])
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            raise UserError(f"{self.out} holds something else: give another --out.") from None

    def whole(self) -> Tally:
        """Return the tally of the one file of a run that has ended."""
        return _tally(self.out) or Tally()

    def begin(self, manifest: Mapping[str, object]) -> None:
        """Write what the run is; from now on the folder can be resumed."""
        path = self.folder / _MANIFEST
        with self.writing(path) as partial:
            partial.write_text(json_text(manifest, indent=2) + "\n", encoding="utf-8")

    def part(self, shard: int, shards: int) -> Path:
        """Return the path of a shard."""
        return self.folder / f"part-{shard:05d}-of-{shards:05d}.parquet"

    def finished(self, counts: tuple[int, ...]) -> dict[int, Tally]:
        """Return the tallies of the shards that are whole; what was half written is deleted.

        Args:
            counts: images of each shard.
        """
        for partial in self.folder.glob("*.partial"):
            partial.unlink()
        found = {}
        for shard, count in enumerate(counts):
            tally = _tally(self.part(shard, len(counts)))
            if tally is not None and tally.images == count:
                found[shard] = tally
        return found

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
            shard: its number.
            shards: how many there are.
            rows: of its images.
            pictures: PNGs by the number of the row.
            manifest: kept in the file too.

        Raises:
            UserError: the disk is full, or refuses.
        """
        if pictures:
            rows = self._with_pictures(shard, rows, pictures)
        errors = len(rows) - rows.column("error").null_count
        resized = rows.column("resized").to_pylist().count(True)
        noted = len(rows) - rows.column("note").null_count
        tally = Tally(len(rows), errors, resized, noted)
        path = self.part(shard, shards)
        with self.writing(path) as partial:
            pq.write_table(_marked(rows, manifest, tally), partial, compression="zstd")
        return tally

    def _with_pictures(self, shard: int, rows: pa.Table, pictures: Mapping[int, bytes]) -> pa.Table:
        folder = self.pictures / f"{shard:05d}"
        names: list[str | None] = [None] * len(rows)
        for index, picture in pictures.items():
            path = folder / f"{index:05d}.png"
            with self.writing(path) as partial:
                partial.write_bytes(picture)
            names[index] = str(path.relative_to(self.out.parent if self.one_file else self.out))
        place = SCHEMA.get_field_index("picture")
        return rows.set_column(place, SCHEMA.field(place), pa.array(names, pa.string()))

    def finish(self, counts: tuple[int, ...], manifest: Mapping[str, object], tally: Tally) -> None:
        """Make one file of the shards where one was asked for, and take the shards away.

        Raises:
            UserError: the disk is full, or refuses, or a file has come into the way.
        """
        if not self.one_file:
            return
        merged = self.folder / "whole.parquet"
        schema = _marked(SCHEMA.empty_table(), manifest, tally).schema
        with (
            self.writing(merged) as partial,
            pq.ParquetWriter(partial, schema, compression="zstd") as writer,
        ):
            for shard in range(len(counts)):
                part = pq.read_table(self.part(shard, len(counts)), partitioning=None)
                writer.write_table(part.replace_schema_metadata(schema.metadata))
        if self.out.exists():
            raise UserError(f"{self.out} has come into the way: the result is in {merged}.")
        os.replace(merged, self.out)
        shutil.rmtree(self.folder)

    @contextmanager
    def writing(self, path: Path) -> Iterator[Path]:
        """Yield the path to write to, which takes the place of `path` once it is on the disk."""
        partial = path.with_name(path.name + ".partial")
        try:
            with held_back():
                path.parent.mkdir(parents=True, exist_ok=True)
                yield partial
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno in _FULL:
                raise UserError(
                    f"The disk is full: {path} was not written. What was finished is kept; make "
                    "room and give the same command with --resume."
                ) from None
            raise UserError(f"Cannot write {path}: {error.strerror or error}.") from None


def _marked(rows: pa.Table, manifest: Mapping[str, object], tally: Tally) -> pa.Table:
    said = json_text({"manifest": manifest, "tally": vars(tally)})
    return rows.replace_schema_metadata({_KEY: said.encode()})


def _tally(path: Path) -> Tally | None:
    """Return the tally that a file carries, or None where there is no whole one."""
    try:
        return Tally(**parse_json((pq.read_schema(path).metadata or {})[_KEY])["tally"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
