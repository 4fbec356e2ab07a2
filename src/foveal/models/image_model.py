"""The base class of models, which return logits and their explanation from one forward pass."""

import inspect
import warnings
from abc import ABC
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from foveal.detectors import Located
from foveal.explanation import Explanation
from foveal.foundation.arguments import check_constructor
from foveal.foundation.errors import UserError, at_least_one, build_checked
from foveal.foundation.model_files import (
    CONFIG,
    WEIGHTS,
    read_settings,
    with_format,
    write_settings,
)
from foveal.foundation.modes import evaluation_mode
from foveal.foundation.precision import at_least_single, check_finite
from foveal.images import LargeImages, PartView, View, WholeView
from foveal.models.abilities import Ability, objective_of
from foveal.models.attention_maps import Attended
from foveal.models.images import Images, as_images
from foveal.models.inputs import Inputs, check_inputs
from foveal.models.weights import Weights, load_weights, save_weights

_HUB_OPTIONS = ("revision", "cache_dir", "force_download", "local_files_only", "token")


class ImageModel(nn.Module, PyTorchModelHubMixin, ABC, library_name="foveal", license="mit"):
    """A model of images that explains its decisions.

    A concrete model has a `name`, is not subclassed further, and implements `observe`, of whose
    result `forward` returns the logits and `explain` everything: so an explanation always matches
    the decision. A model that decides from patches at keypoints instead implements `locate` and
    `decide`, which `observe` calls; one that weights features by attention maps, `attend` and
    `decide`.

    Args:
        in_channels: channels C of the images.
        num_classes: number of classes; 0 for a model that rebuilds images.
        inputs: the images that the model expects.

    Raises:
        UserError: `inputs` do not match the channels or the classes.
    """

    name: ClassVar[str]  # in `MODELS` and in config.json
    evidence_kind: str = "image"  # what the decision is made from; or "patches" or "maps"
    # The abilities determine which metrics and explainers can be used with the model.
    abilities: frozenset[Ability] = frozenset({Ability.CLASSES})
    min_side: int = 1  # of the images, in pixels
    tasks: tuple[str, ...] = ("class",)  # the main one first
    mean: Tensor
    std: Tensor
    black: Tensor  # value of a black pixel after normalisation
    about: object = None  # metadata of the ONNX graphs that replace its parts

    def __init_subclass__(cls, **options: Any) -> None:
        check_constructor(cls)
        super().__init_subclass__(**options)

    def __init__(self, in_channels: int, num_classes: int, inputs: Inputs):
        super().__init__()
        check_inputs(inputs, in_channels, num_classes)
        self.in_channels, self.num_classes, self.inputs = in_channels, num_classes, inputs
        # Written to config.json by the hub mixin, which collects only the arguments by itself.
        self._hub_mixin_config = with_format({"name": self.name, **self.settings()})
        mean = torch.tensor(inputs.mean or (0.0,)).reshape(1, -1, 1, 1)
        std = torch.tensor(inputs.std or (1.0,)).reshape(1, -1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.register_buffer("black", -mean / std, persistent=False)

    @property
    def objective(self) -> str:
        """Name of the objective that trains the model, in `training.objectives`."""
        return objective_of(self.abilities)

    def observe(self, view: View) -> Explanation:
        """Return the logits for a view of B images, and the evidence for them.

        `explain` calls it in inference mode: tensors that a model keeps for training must be
        cloned.
        """
        if Ability.GIVEN_MAPS in self.abilities:
            return self.decide(view, self.attend(view))
        return self.decide(view, self.locate(view))

    def locate(self, view: View) -> Located:
        """Return the locations of patches in B images; for `Ability.KEYPOINTS`."""
        raise self._ability_error(Ability.KEYPOINTS)

    def attend(self, view: View) -> Attended:
        """Return features and attention maps of B images; for `Ability.GIVEN_MAPS`."""
        raise self._ability_error(Ability.GIVEN_MAPS)

    def decide(self, view: View, given: Any) -> Explanation:
        """Return the logits for B images, given the locations of patches or attention maps.

        Args:
            view: the images.
            given: `Located` or `Attended`, as `locate` or `attend` returns it, or with other values
                in it. If values of `Located` are None, such as the scales, the model computes them.
        """
        raise self._ability_error(Ability.GIVEN_KEYPOINTS)

    def _ability_error(self, ability: Ability) -> UserError:
        return UserError(
            f"Expected a model that {ability.value}, but got {self.name!r}, which does not."
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes) for images (B, C, H, W) of floats in [0, 1].

        A model without classes returns the images rebuilt, (B, C, H, W) in [0, 1].
        """
        self.check(images)
        observed = self.observe(self.view(images))
        return observed.logits if observed.rebuilt is None else observed.rebuilt

    def explain(self, images: Images | LargeImages, batch_size: int = 256) -> Explanation:
        """Return the model's logits for images and the evidence for them.

        Args:
            images: (B, C, H, W), any number B, floats in [0, 1]: a tensor, a NumPy array, or a list
                of either (C, H, W). The explanation may share their memory. Or large images, which
                a model with `Ability.IN_PART` reads only in part.
            batch_size: images per forward pass, which limits the memory.

        Raises:
            UserError: the images are not of the model's shape or type, or not finite.
        """
        batch_size = at_least_one("batch_size", batch_size)
        if isinstance(images, LargeImages):
            batches = torch.arange(len(images)).split(batch_size)
            with evaluation_mode(self):
                explanations = [self._explain_view(self.view(images, rows)) for rows in batches]
            return Explanation.concatenate(explanations)
        images = as_images(images)
        self.check(images)
        self._check_values(images)
        batches = images.detach().split(batch_size)
        with evaluation_mode(self):
            explanations = [self._explain_view(self.view(batch), batch) for batch in batches]
        return Explanation.concatenate(explanations)

    def _explain_view(self, view: View, images: Tensor | None = None) -> Explanation:
        with torch.inference_mode():
            observed = self.observe(view)
        return self.explained(observed, images)

    def view(self, images: Tensor | LargeImages, indices: Tensor | None = None) -> View:
        """Return a view of images for `observe`: normalised and on the model's device.

        Args:
            images: (N, C, H, W), floats in [0, 1] or uint8; or large images.
            indices: (B,) indices of the images in the view, or None for all.
        """
        if not isinstance(images, Tensor):
            indices = torch.arange(len(images)) if indices is None else indices
            return PartView(images, indices, self.mean, self.std)
        chosen = images if indices is None else images[indices]
        if chosen.dtype == torch.uint8:
            chosen = chosen.to(self.mean) / 255
        return WholeView(self.normalised(chosen), self.black)

    def classify_at(
        self, images: Tensor, keypoints: Tensor, scales: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, classes) for given keypoints.

        Args:
            images: (B, C, H, W), floats in [0, 1].
            keypoints: (B, K, 2) in grid units.
            scales: (B, K) pixels from one sample to the next; if None, the model chooses them.

        Raises:
            UserError: the images are not of the model's shape or type.
        """
        self.check(images)
        return self.decide(self.view(images), Located(keypoints, scales)).logits

    @torch.no_grad()
    def explain_at(
        self, images: Images, keypoints: Tensor, scales: Tensor | None = None
    ) -> Explanation:
        """Return the explanation of images for given keypoints.

        Args:
            images: (B, C, H, W), floats in [0, 1], as in `explain`.
            keypoints: (B, K, 2) in grid units, with the model's K.
            scales: (B, K) pixels from one sample to the next; if None, the model chooses them.

        Raises:
            UserError: the images are not of the model's shape or type.
        """
        images = as_images(images)
        self.check(images)
        return self.explained(self.decide(self.view(images), Located(keypoints, scales)), images)

    def normalised(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) in [0, 1] normalised, with the model's type and device."""
        # The copy to a GPU is asynchronous if the images are in pinned memory.
        return (images.to(self.mean, non_blocking=self.mean.is_cuda) - self.mean) / self.std

    def explained(self, observed: Explanation, images: Tensor | None = None) -> Explanation:
        """Return the result of a forward pass, denormalised and on the CPU.

        Args:
            observed: result of this model's `observe`.
            images: (B, C, H, W) in [0, 1]; if None, those in `observed` are denormalised instead.
        """
        tensors = self.denormalised(observed)
        tensors["images"] = observed.images * self.std + self.mean if images is None else images
        # Autograd rejects tensors of the inference mode, but accepts a copy of one.
        on_cpu: dict[str, Any] = {
            name: at_least_single(tensor.detach().to("cpu", copy=tensor.is_inference()))
            for name, tensor in tensors.items()
        }
        return replace(observed, classes=tuple(self.inputs.classes), **on_cpu)

    def denormalised(self, observed: Explanation) -> dict[str, Tensor]:
        """Return the tensors of a forward pass, with patches and thumbnail in [0, 1]."""
        tensors = observed.computed()
        if "patches" in tensors:
            tensors["patches"] = tensors["patches"] * self.std[:, None] + self.mean[:, None]
        if "thumbnail" in tensors:
            tensors["thumbnail"] = tensors["thumbnail"] * self.std + self.mean
        return tensors

    def check(self, images: Tensor) -> None:
        """Raise UserError unless images are floats (B, C, H, W) that the model can read."""
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise UserError(
                f"Expected images (B, {self.in_channels}, H, W), but got {tuple(images.shape)}. "
                f"This model reads {self.in_channels} channel(s), on the second axis."
            )
        if not images.is_floating_point():
            raise UserError(
                f"Expected images of floats in [0, 1], but got {images.dtype}. "
                "Divide uint8 images by 255: images / 255."
            )
        if self.min_side > 1 and min(images.shape[-2:]) < self.min_side:
            raise UserError(
                f"Expected images of at least {self.min_side}x{self.min_side} pixels, but got "
                f"{images.shape[-2]}x{images.shape[-1]}. Resize them."
            )
        if images.shape[0] == 0:  # not len(), which an export would turn into a constant
            raise UserError("Expected at least 1 image, but got none.")

    def _check_values(self, images: Tensor) -> None:
        """Warn of an unusual size or values outside [0, 1]; raise UserError if not finite."""
        size = self.inputs.size
        if size is not None and tuple(images.shape[-2:]) != tuple(size):
            warnings.warn(
                f"This model was trained on images of {size[0]}x{size[1]} pixels and got "
                f"{images.shape[-2]}x{images.shape[-1]}: its predictions may be unreliable.",
                stacklevel=3,
            )
        low, high = torch.aminmax(images)
        if not (low.isfinite() and high.isfinite()):
            check_finite("The images", images)
        if low.item() < 0 or high.item() > 1:
            message = "Expected images in [0, 1]; other values make predictions unreliable."
            warnings.warn(message, stacklevel=3)

    def settings(self) -> dict[str, object]:
        """Return the settings from which `build_model` rebuilds this model, as in `config.json`."""
        config = cast(dict[str, object], self._hub_mixin_config or {})
        return {key: value for key, value in config.items() if key != "format"}

    @classmethod
    def abilities_with(cls, settings: Mapping[str, object]) -> frozenset[Ability]:
        """Return the abilities that a model of this class with these settings would have."""
        return cls.abilities

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> Self:
        """Build a model of this class with new weights.

        Args:
            settings: arguments of the constructor as plain values; parts such as a detector, and
                `inputs`, are nested settings.

        Raises:
            UserError: a name or an argument is unknown, missing or invalid.
        """
        arguments = dict(settings)
        for name, parameter in inspect.signature(cls).parameters.items():
            if name in arguments and parameter.annotation in cls._hub_mixin_coders:
                _to_settings, build_part = cls._hub_mixin_coders[parameter.annotation]
                arguments[name] = build_part(arguments[name])
        if "inputs" in arguments and not isinstance(arguments["inputs"], Inputs):
            arguments["inputs"] = Inputs.from_settings(arguments["inputs"])
        return build_checked(f"model {cls.name!r}", cls, arguments)

    def save_weights(self, folder: Path) -> None:
        """Write config.json and model.safetensors into a folder, each atomically."""
        save_weights(self, folder)
        write_settings(folder, self.settings())

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(self, save_directory)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        map_location: str = "cpu",
        strict: bool = True,
        **options: Any,
    ) -> Self:
        """Load a model in evaluation mode, from safetensors only.

        Args:
            pretrained_model_name_or_path: a folder, or OWNER/NAME on the Hugging Face Hub.
            map_location: device of the model.
            strict: whether the file must contain exactly the weights of the model.
            options: `revision`, `cache_dir`, `force_download`, `local_files_only` and `token` are
                passed on to the Hub; all others replace settings in config.json.

        Raises:
            UserError: a file is missing or damaged, or the model is of another class.
        """
        from huggingface_hub import hf_hub_download

        hub = {key: options.pop(key) for key in _HUB_OPTIONS if key in options}
        source = Path(pretrained_model_name_or_path)
        config, weights = (
            source / file if source.is_dir() else Path(hf_hub_download(str(source), file, **hub))
            for file in (CONFIG, WEIGHTS)
        )
        settings = read_settings(config)
        if (name := settings.pop("name")) != cls.name:
            message = f"Expected a {cls.name!r} model in {config}, but found {name!r}."
            raise UserError(f"{message} Use foveal.load for any model.")
        model = load_weights(
            lambda: cls.from_settings({**settings, **options}), Weights(weights), strict
        )
        return model.to(map_location)
