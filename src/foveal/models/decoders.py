"""Decoders: patches and their places -> the image, rebuilt."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.arguments import checked
from foveal.errors import build_by_name
from foveal.models.modes import evaluation_mode
from foveal.ranges import Channels, Keypoints, PatchSize, Side, Width, Widths
from foveal.registry import Registry


class Seen(NamedTuple):
    """All that a decoder gets: the patches, and the same on an empty image."""

    patches: Tensor  # (B, K, C, P, P), normalised
    keypoints: Tensor  # (B, K, 2)
    shown: Tensor  # (B, C, H, W), normalised; 0 where no patch is
    mask: Tensor  # (B, 1, H, W), 1 where a patch is

    @property
    def vector(self) -> Tensor:
        """Each image's patches and keypoints in one row (B, K (C P P + 2))."""
        keypoints = self.keypoints.to(self.patches.dtype)
        return torch.cat([self.patches.flatten(1), keypoints.flatten(1)], dim=1)


class Rebuilt(NamedTuple):
    """What a decoder makes of it."""

    images: Tensor  # (B, C, H, W) in [0, 1]
    mean: Tensor | None = None  # (B, L) of the latent vector, in a VAE
    log_variance: Tensor | None = None  # (B, L)


class Decoder(nn.Module, ABC):
    """Rebuilds images from what was seen of them.

    A subclass is final and keeps each argument as an attribute of the same name. It is told
    `keypoints`, `patch_size`, `in_channels` and `size` by the model that it is part of.
    """

    @abstractmethod
    def forward(self, seen: Seen) -> Rebuilt:
        """Return the rebuilt images, of the size that `seen.shown` has."""

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build this decoder again."""
        names = inspect.signature(type(self).__init__).parameters
        return {name: getattr(self, name) for name in names if name != "self"}


class MLPDecoder(Decoder):
    """A perceptron from all pixels of the patches and their places, as the original project's.

    Images of other sizes than it was built for are rebuilt at that size and resized.

    Args:
        keypoints: number K of patches.
        patch_size: side P of a patch in pixels.
        in_channels: channels C.
        size: height and width in pixels of what it rebuilds.
        widths: outputs of the hidden layers.
    """

    @checked
    def __init__(
        self,
        keypoints: Keypoints,
        patch_size: PatchSize,
        in_channels: Channels,
        size: tuple[Side, Side],
        widths: Widths = (512, 512),
    ):
        super().__init__()
        self.keypoints, self.patch_size, self.in_channels = keypoints, patch_size, in_channels
        self.size, self.widths = list(size), list(widths)
        layers: list[nn.Module] = []
        numbers = keypoints * (in_channels * patch_size**2 + 2)
        for width in widths:
            layers += [nn.Linear(numbers, width), nn.GELU()]
            numbers = width
        self.layers = nn.Sequential(*layers, nn.Linear(numbers, in_channels * math.prod(size)))

    def forward(self, seen: Seen) -> Rebuilt:
        """Return the rebuilt images."""
        images = self.layers(seen.vector).unflatten(1, (self.in_channels, *self.size))
        return Rebuilt(resized(images, seen.shown).sigmoid())


class ConvDecoder(Decoder):
    """Convolutions over the patches laid out on an empty image, down to coarse places and back.

    A U-Net (Ronneberger et al. 2015) of the image with holes and the mask of what was seen. Its
    finest places are 2x2 pixels (Shi et al. 2016, "sub-pixel convolution"), which costs a third.

    Args:
        in_channels: channels C.
        widths: output channels at each resolution; each is half of the one before.
    """

    @checked
    def __init__(self, in_channels: Channels, widths: Widths = (32, 64, 96)):
        super().__init__()
        self.in_channels, self.widths = in_channels, list(widths)
        down, up = [_convolutions(4 * (in_channels + 1), widths[0], 1)], []
        for fine, coarse in pairwise(widths):
            down.append(_convolutions(fine, coarse, 2))
            up.append(_convolutions(coarse + fine, fine, 1))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.last = nn.Conv2d(widths[0], 4 * in_channels, 3, padding=1)

    def forward(self, seen: Seen) -> Rebuilt:
        """Return the rebuilt images."""
        height, width = seen.mask.shape[-2:]
        even = F.pad(torch.cat([seen.shown, seen.mask], dim=1), (0, width % 2, 0, height % 2))
        features = F.pixel_unshuffle(even, 2)  # (B, 4 (C + 1), H / 2, W / 2)
        finer = []
        for block in self.down:
            features = block(features)
            finer.append(features)
        finer.pop()
        for block in reversed(self.up):
            beside = finer.pop()
            features = block(torch.cat([resized(features, beside), beside], dim=1))
        images = F.pixel_shuffle(self.last(features), 2)[..., :height, :width]
        return Rebuilt(images.sigmoid())


class VAEDecoder(Decoder):
    """A variational autoencoder of what was seen: patches -> latent vector -> image.

    The latent vector is drawn in training and is the mean of its distribution otherwise
    (Kingma & Welling 2014); from one that is drawn from the prior comes an image that never was.
    Images of other sizes than it was built for are rebuilt at that size and resized.

    Args:
        keypoints: number K of patches.
        patch_size: side P of a patch in pixels.
        in_channels: channels C.
        size: height and width in pixels of what it rebuilds.
        latent: numbers L in the latent vector.
        width: numbers in a hidden layer; a quarter of it are the channels of the convolutions.
    """

    @checked
    def __init__(
        self,
        keypoints: Keypoints,
        patch_size: PatchSize,
        in_channels: Channels,
        size: tuple[Side, Side],
        latent: Width = 32,
        width: Width = 256,
    ):
        super().__init__()
        self.keypoints, self.patch_size, self.in_channels = keypoints, patch_size, in_channels
        self.size, self.latent, self.width = list(size), latent, width
        numbers = keypoints * (in_channels * patch_size**2 + 2)
        self.encode = nn.Sequential(
            nn.Linear(numbers, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 2 * latent),
        )
        self.coarse = [-(-side // 4) for side in size]
        channels = max(width // 4, 1)
        self.spread = nn.Sequential(
            nn.Linear(latent, width), nn.GELU(), nn.Linear(width, channels * math.prod(self.coarse))
        )
        self.fine = nn.ModuleList(
            [_convolutions(channels, channels, 1), _convolutions(channels, channels // 2 or 1, 1)]
        )
        self.last = nn.Conv2d(channels // 2 or 1, in_channels, 3, padding=1)

    def forward(self, seen: Seen) -> Rebuilt:
        """Return the rebuilt images, and the distribution of their latent vectors."""
        mean, log_variance = self.encode(seen.vector).chunk(2, dim=1)
        latents = mean
        if self.training:
            latents = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        images = resized(self.decode(latents), seen.shown)
        return Rebuilt(images.sigmoid(), mean, log_variance)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images (B, C, H, W), before the sigmoid, for latent vectors (B, L)."""
        features = self.spread(latents).unflatten(1, (-1, *self.coarse))
        for block in self.fine:
            features = block(F.interpolate(features, scale_factor=2.0))
        height, width = self.size
        return self.last(features)[..., :height, :width]

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Return images (count, C, H, W) in [0, 1] from latent vectors drawn from the prior."""
        like = self.last.weight
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(count, self.latent, generator=generator).to(like.device, like.dtype)
        with evaluation_mode(self):
            return self.decode(latents).sigmoid()


DECODERS: Registry[type[Decoder]] = Registry(
    "foveal.decoders", {"mlp": MLPDecoder, "conv": ConvDecoder, "vae": VAEDecoder}
)


def build_decoder(settings: Mapping[str, Any]) -> Decoder:
    """Build a decoder from `{"name": ..., argument: value, ...}`.

    Raises:
        UserError: the name or an argument is not known, missing or of no use.
    """
    return build_by_name("decoder", DECODERS, settings)


def decoder_settings(decoder: Decoder) -> dict[str, Any]:
    """Return the settings from which `build_decoder` builds this decoder again."""
    kind = type(decoder)
    return {"name": DECODERS.name_of(kind) or kind.__name__, **decoder.settings()}


def resized(images: Tensor, like: Tensor) -> Tensor:
    """Return images (B, C, ...) of the height and width of `like`, bilinearly where they differ."""
    if images.shape[-2:] == like.shape[-2:]:
        return images
    return F.interpolate(images, like.shape[-2:], mode="bilinear", align_corners=False)


def _convolutions(in_channels: int, width: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
