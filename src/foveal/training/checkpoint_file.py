"""Checkpoint files: written atomically, and read as plain data that may come from anyone."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from foveal.foundation.errors import UserError
from foveal.foundation.files import check_extent, open_regular, write_bytes

FilePath = str | os.PathLike[str]
_MAX_INTEGER = 2**63  # integers of tensors and of Lightning's counters are below it


class AtomicCheckpointIO(TorchCheckpointIO):
    """A Lightning plugin that reads and writes checkpoints with this module's functions.

    Options for the storage, device and unpickling are ignored.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, object],
        path: FilePath,
        storage_options: object = None,
    ) -> None:
        """Write a checkpoint atomically; raises an OSError if the file cannot be written."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self,
        path: FilePath,
        map_location: object = None,
        weights_only: bool | None = None,
    ) -> dict[str, object]:
        """Return a checkpoint as plain values; raises a UserError if it cannot be read."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: FilePath) -> None:
        """Delete the file if it exists. Unlike in Lightning, a folder is never deleted."""
        Path(path).unlink(missing_ok=True)


def write_checkpoint(checkpoint: dict[str, object], path: Path) -> None:
    """Write a checkpoint atomically: after an error, an existing file is unchanged.

    Missing folders are created.

    Raises:
        OSError: the file cannot be written.
    """
    content = io.BytesIO()  # torch's own writer does not report a full disk
    torch.save(checkpoint, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the plain values and CPU tensors of a checkpoint; no other objects are created.

    Compressed files are rejected, so that a small file cannot fill the memory.

    Raises:
        UserError: the file cannot be read as a checkpoint. The message is only the reason, so the
            caller should add the file's path.
    """
    try:
        with open_regular(path) as file:
            with zipfile.ZipFile(file) as parts:
                if (
                    sum(part.file_size for part in parts.infolist())
                    > os.fstat(file.fileno()).st_size
                ):
                    raise UserError("compressed, but Foveal writes uncompressed checkpoints")
            file.seek(0)
            values = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:  # raised above or by `open_regular`
        raise
    except FileNotFoundError:
        raise UserError("the file does not exist") from None
    except OSError as error:
        raise UserError(error.strerror or str(error)) from None
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UserError("damaged or truncated") from error
    except Exception as error:  # invalid bytes may make torch raise an exception of any type
        raise UserError("damaged") from error
    check_extent(values)
    if not isinstance(values, dict):
        raise UserError("not a checkpoint")
    return _plain(values)


def _plain(value: object) -> Any:
    """Return a copy of nested values in plain types.

    Instances of subclasses are rejected or converted, because their methods might do harm.

    Raises:
        UserError: a value has another type.
    """
    if isinstance(value, Tensor):
        return _plain_tensor(value)
    if isinstance(value, dict):
        if not all(type(key) in (str, int) for key in value):
            raise UserError("a key that is neither text nor an integer")
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(_plain(inner) for inner in value)
    if type(value) is int and abs(value) >= _MAX_INTEGER:
        raise UserError("an integer of more than 64 bits")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise UserError(f"a value of type {type(value).__name__}")


def _plain_tensor(value: Tensor) -> Tensor:
    """Return a tensor without its gradient.

    Raises:
        UserError: it is not a dense CPU tensor, or several of its elements share memory, so that a
            small file could describe a huge tensor.
    """
    value = value.detach()
    if type(value) is not Tensor or value.layout != torch.strided or value.device.type != "cpu":
        raise UserError("a tensor that is not a dense CPU tensor")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UserError("a tensor larger than its stored data")
    return value
