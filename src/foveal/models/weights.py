"""Weights in safetensors files, which are written atomically and validated when they are read.

Shipped weights are the pretrained weights that the Foveal package contains. A card is the file
card.json next to a model's weights, which describes the model and may have a digest of the weights.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from foveal.backbones import Backbone
from foveal.foundation.errors import UserError, one_line
from foveal.foundation.files import MAX_SETTINGS, open_regular, write_bytes
from foveal.foundation.model_files import (
    CARD,
    DIGEST,
    WEIGHTS,
    read_card,
    weights_digest,
    write_card,
)

# A weight may be stored as its 8-bit difference from the shipped weight; this suffix of its name
# then marks the scale of each output channel.
SCALE = ".difference_scale"
MAX_PARAMETERS = 2**29  # of a new model; 2 GB in single precision
# A model may have SPARE_FACTOR times the parameters in its file, plus SPARE: the constructor may
# create layers that the model does not keep, such as the three linear layers of timm's VGG.
SPARE_FACTOR = 8
SPARE = 2**26

Model = TypeVar("Model", bound=nn.Module)


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write a model's weights into a folder, atomically.

    Weights that equal the shipped ones are omitted, and restored by `load_weights`. If there is a
    card in the folder, its digest is removed first, because it will not match the new weights.
    """
    from safetensors.torch import save

    card = read_card(folder)
    if card.pop(DIGEST, None) is not None:
        write_card(folder, card)
    shipped = shipped_weights(model)
    state = {
        name: values.detach().cpu().contiguous()
        for name, values in model.state_dict().items()
        if name not in shipped or not torch.equal(values.cpu(), shipped[name].to(values.dtype))
    }
    # Not `save_file` of safetensors, which writes a file that only its owner can read.
    write_bytes(folder / WEIGHTS, save(state))


def load_weights(build: Callable[[], Model], weights: "Weights", strict: bool = True) -> Model:
    """Build a model, copy its trained weights into it, and return it in evaluation mode.

    A model that would be much larger than its file is refused, so that a few lines of settings from
    an untrusted source cannot allocate all memory.

    Args:
        build: returns the model with new weights.
        weights: the trained weights.
        strict: whether the file must contain exactly the weights of the model.

    Raises:
        UserError: the model cannot be built, or the weights are damaged or belong to another model.
    """
    with parameter_limit(SPARE_FACTOR * weights.parameters + SPARE):
        model = build()
    weights.fill(model, strict)
    return model.eval()


class Weights:
    """A file of weights, opened but not read yet.

    Args:
        path: path of a safetensors file; a `card.json` in its folder may contain its digest.

    Raises:
        UserError: the file cannot be read, or does not match the digest on the card.
    """

    def __init__(self, path: Path):
        from safetensors import SafetensorError, safe_open

        self.path = path
        try:
            with open_regular(path) as file:
                header_size = int.from_bytes(file.read(8), "little")
            if header_size > MAX_SETTINGS:
                raise UserError(f"its header has {header_size:,} bytes")
            self.file: Any = safe_open(path, "pt")
            # For each name of a weight in the model, its name in the file.
            self.stored: dict[str, str] = {name: name for name in self.file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, UserError) as error:
            raise self._corrupt(error) from None
        self._check_digest()

    @property
    def parameters(self) -> int:
        """Number of parameters in the file."""
        shapes = (self.file.get_slice(name).get_shape() for name in self.stored.values())
        return sum(torch.Size(shape).numel() for shape in shapes)

    def rename(self, current: Callable[[str], str]) -> None:
        """Set the names of the weights in the model, if they differ from those in the file.

        Args:
            current: turns a weight's name in the file into its name in the model.
        """
        self.stored = {current(stored): stored for stored in self.stored.values()}

    def fill(self, model: nn.Module, strict: bool = True) -> None:
        """Copy the weights into a model, in place.

        Args:
            model: the model, whose weights are overwritten.
            strict: whether the file must contain exactly the weights of the model.

        Raises:
            UserError: the weights are damaged or belong to another model.
        """
        from safetensors import SafetensorError

        try:
            state = {name: self.file.get_tensor(stored) for name, stored in self.stored.items()}
        except SafetensorError as error:
            raise self._corrupt(error) from None
        initial, shipped = model.state_dict(), shipped_weights(model)
        state = self._restore(state, shipped)
        for name, values in state.items():
            if name in initial and values.is_floating_point() != initial[name].is_floating_point():
                raise self._corrupt(f"{name} is of type {values.dtype}, not {initial[name].dtype}")
            if not _is_finite(values):
                raise self._corrupt(f"{name} has NaN or infinite values")
        state |= {name: initial[name] for name in shipped if name not in state}
        try:
            model.load_state_dict(state, strict=strict)
        except RuntimeError as error:
            reason = one_line(error)
            raise UserError(
                f"The weights in {self.path} belong to another model: {reason}"
            ) from None

    def _restore(self, state: dict[str, Tensor], shipped: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict of the model for that of its file.

        Weights that the file stores as 8-bit differences are added to the shipped weights.

        Args:
            state: tensors by name, with a second tensor, NAME + `SCALE`, for each difference.
            shipped: the shipped weights by name.

        Raises:
            UserError: a difference or its scale has the wrong type or shape.
        """
        restored = {name: values for name, values in state.items() if not name.endswith(SCALE)}
        for name in (name.removesuffix(SCALE) for name in state if name.endswith(SCALE)):
            steps, scale, base = state.get(name), state[name + SCALE], shipped.get(name)
            if steps is None or steps.dtype != torch.int8 or scale.dtype != torch.float32:
                raise self._corrupt(f"{name} is not an 8-bit difference")
            if base is None or base.shape != steps.shape or scale.shape != steps.shape[:1]:
                raise self._corrupt(f"{name} does not match the weights shipped with Foveal")
            restored[name] = base.float() + steps * _by_channel(scale, steps.ndim)
        return restored

    def _check_digest(self) -> None:
        """Raise UserError unless the file matches the digest on the card, if there is one."""
        expected = read_card(self.path.parent).get(DIGEST)
        if expected is not None and weights_digest(self.path) != expected:
            raise UserError(
                f"The weights in {self.path} are corrupt, or were replaced: their SHA-256 differs "
                f"from that on {CARD}. Restore the file, or remove {DIGEST!r} from the card."
            )

    def _corrupt(self, error: object) -> UserError:
        return UserError(f"The weights in {self.path} are corrupt: {one_line(error)}.")


def as_difference(weight: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """Return a weight as its 8-bit difference from another weight, which loses precision.

    Args:
        weight: (O, ...) floats, for O output channels.
        base: the other weight, of the same shape.

    Returns:
        Integers (O, ...) from -127 to 127, and for each output channel the scale (O,) by which they
        must be multiplied.
    """
    difference = weight.float() - base.float()
    scale = difference.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(torch.half).tiny) / 127
    return (difference / _by_channel(scale, weight.ndim)).round().to(torch.int8), scale


def _by_channel(scale: Tensor, dimensions: int) -> Tensor:
    """Return scales (O,) as (O, 1, ...), to multiply weights (O, ...) of that many dimensions."""
    return scale.view(-1, *[1] * (dimensions - 1))


def shipped_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the shipped weights of a model's backbones, by name in the model's state dict."""
    return {
        f"{name}.{key}" if name else key: values
        for name, module in model.named_modules()
        if isinstance(module, Backbone)
        for key, values in module.shipped().items()
    }


def _is_finite(values: Tensor) -> bool:
    """Return whether a tensor has no NaN or infinite values; integers never have."""
    return not values.is_floating_point() or bool(values.isfinite().all())


@contextmanager
def parameter_limit(limit: int = MAX_PARAMETERS) -> Iterator[None]:
    """Limit the number of parameters that models register, in total, in the block.

    Only models that this thread builds are limited. A parameter is counted when a module registers
    it, which is before its initial values are written and thus before it takes physical memory.

    Args:
        limit: maximum number of parameters.

    Raises:
        UserError: there are more than `limit` parameters.
    """
    thread = threading.get_ident()
    count = 0

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        """Count a new parameter; torch calls this for every module in every thread."""
        nonlocal count
        if parameter is None or threading.get_ident() != thread:
            return
        count += parameter.numel()
        if count > limit:
            raise UserError(f"the settings describe a model with more than {limit:,} parameters.")

    handle = nn.modules.module.register_module_parameter_registration_hook(register)
    try:
        yield
    finally:
        handle.remove()
