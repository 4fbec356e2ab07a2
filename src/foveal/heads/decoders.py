"""Decoders: heads that rebuild the image from patches and locations."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.detectors import Located
from foveal.foundation.modes import evaluation_mode
from foveal.foundation.ranges import Channels, Keypoints, PatchSize, Positive, Side, Width, Widths
from foveal.heads.head import Head, HeadOutput


class Decoder(Head):
    """A head that rebuilds the image, without classes."""

    rebuilds = True


class PatchDecoder(Decoder):
    """A decoder of all patches and locations as one vector (`join_patches`).

    Images of other sizes are rebuilt at the decoder's size and resized.

    Args:
        keypoints: number K of patches.
        patch_size: side P of a patch in pixels.
        in_channels: channels C.
        size: height and width in pixels of rebuilt images.
        softness_px: see `Head`.
    """

    def __init__(
        self,
        keypoints: int,
        patch_size: int,
        in_channels: int,
        size: tuple[int, int],
        softness_px: float,
    ):
        super().__init__()
        self.keypoints, self.patch_size, self.in_channels = keypoints, patch_size, in_channels
        self.size, self.softness_px = list(size), softness_px

    @property
    def features(self) -> int:
        """Dimension of the vector of all patches and locations."""
        return self.keypoints * (self.in_channels * self.patch_size**2 + 2)


class MLPDecoder(PatchDecoder):
    """A perceptron on the patches' pixels and locations, as in the original project.

    Other arguments as in `PatchDecoder`.

    Args:
        widths: widths of the hidden layers.
    """

    def __init__(
        self,
        keypoints: Keypoints,
        patch_size: PatchSize,
        in_channels: Channels,
        size: tuple[Side, Side],
        widths: Widths = (512, 512),
        softness_px: Positive = 1.0,
    ):
        super().__init__(keypoints, patch_size, in_channels, size, softness_px)
        self.widths = list(widths)
        layers: list[nn.Module] = []
        features = self.features
        for width in widths:
            layers += [nn.Linear(features, width), nn.GELU()]
            features = width
        self.layers = nn.Sequential(*layers, nn.Linear(features, in_channels * math.prod(size)))

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return the rebuilt images."""
        values = self.layers(join_patches(patches, located))
        images = values.unflatten(1, (self.in_channels, *self.size))
        return rebuilt(resize_like(images, canvas_of(located)).sigmoid())


class ConvDecoder(Decoder):
    """A U-Net over the patches on an empty image (Ronneberger et al. 2015).

    Its inputs are that image and the mask of the patches. Its finest features have one location per
    2x2 pixels (Shi et al. 2016, "sub-pixel convolution"), at a third of the cost.

    Args:
        in_channels: channels C.
        widths: output channels at each resolution, which is half of the previous one.
        softness_px: see `Head`.
    """

    def __init__(
        self,
        in_channels: Channels,
        widths: Widths = (32, 64, 96),
        softness_px: Positive = 1.0,
    ):
        super().__init__()
        self.in_channels, self.widths = in_channels, list(widths)
        self.softness_px = softness_px
        down, up = [_convolutions(4 * (in_channels + 1), widths[0], 1)], []
        for fine, coarse in pairwise(widths):
            down.append(_convolutions(fine, coarse, 2))
            up.append(_convolutions(coarse + fine, fine, 1))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.last = nn.Conv2d(widths[0], 4 * in_channels, 3, padding=1)

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return the rebuilt images."""
        canvas = canvas_of(located)
        height, width = canvas.shape[-2:]
        padded = F.pad(canvas, (0, width % 2, 0, height % 2))
        features = F.pixel_unshuffle(padded, 2)  # (B, 4 (C + 1), H / 2, W / 2)
        skips = []
        for block in self.down:
            features = block(features)
            skips.append(features)
        skips.pop()
        for block in reversed(self.up):
            skip = skips.pop()
            features = block(torch.cat([resize_like(features, skip), skip], dim=1))
        images = F.pixel_shuffle(self.last(features), 2)[..., :height, :width]
        return rebuilt(images.sigmoid())


class VAEDecoder(PatchDecoder):
    """A variational autoencoder: patches -> latent vector -> image.

    In training the latent vector is sampled; in evaluation it is the mean of its distribution
    (Kingma & Welling 2014); a sample from the prior generates a new image. Other arguments as in
    `PatchDecoder`.

    Args:
        latent: dimension L of the latent vector.
        width: width of a hidden layer; the convolutions have a quarter as many channels.
    """

    def __init__(
        self,
        keypoints: Keypoints,
        patch_size: PatchSize,
        in_channels: Channels,
        size: tuple[Side, Side],
        latent: Width = 32,
        width: Width = 256,
        softness_px: Positive = 1.0,
    ):
        super().__init__(keypoints, patch_size, in_channels, size, softness_px)
        self.latent, self.width = latent, width
        self.encode = nn.Sequential(
            nn.Linear(self.features, width),
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

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return the rebuilt images, and the distribution of their latent vectors."""
        mean, log_variance = self.encode(join_patches(patches, located)).chunk(2, dim=1)
        latents = mean
        if self.training:
            latents = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        images = resize_like(self.decode(latents), canvas_of(located))
        return rebuilt(images.sigmoid(), (mean, log_variance))

    def decode(self, latents: Tensor) -> Tensor:
        """Return images (B, C, H, W), before the sigmoid, for latent vectors (B, L)."""
        features = self.spread(latents).unflatten(1, (-1, *self.coarse))
        for block in self.fine:
            features = block(F.interpolate(features, scale_factor=2.0))
        height, width = self.size
        return self.last(features)[..., :height, :width]

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Return images (count, C, H, W) in [0, 1] from latent vectors sampled from the prior."""
        weight = self.last.weight
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(count, self.latent, generator=generator).to(weight)
        with evaluation_mode(self):
            return self.decode(latents).sigmoid()


# By name in the preset `reconstructor`; in `HEADS` they are named mlp-decoder etc.
DECODERS: dict[str, type[Head]] = {"mlp": MLPDecoder, "conv": ConvDecoder, "vae": VAEDecoder}


def join_patches(patches: Tensor, located: Located) -> Tensor:
    """Return each image's patches and keypoints as one vector (B, K (C P P + 2))."""
    keypoints = located.xy.to(patches.dtype)
    return torch.cat([patches.flatten(1), keypoints.flatten(1)], dim=1)


def canvas_of(located: Located) -> Tensor:
    """Return the canvas (B, C + 1, H, W) that a model provides to heads that rebuild images."""
    assert located.canvas is not None
    return located.canvas


def rebuilt(images: Tensor, latent: tuple[Tensor, Tensor] | None = None) -> HeadOutput:
    """Return the output of a head that rebuilds images (B, C, H, W), without logits."""
    # len() would fix the batch size of an export.
    return HeadOutput(images.new_zeros(images.shape[0], 0), rebuilt=images, latent=latent)


def resize_like(images: Tensor, reference: Tensor) -> Tensor:
    """Return images (B, C, ...) resized bilinearly to the size of `reference`."""
    if images.shape[-2:] == reference.shape[-2:]:
        return images
    return F.interpolate(images, reference.shape[-2:], mode="bilinear", align_corners=False)


def _convolutions(in_channels: int, width: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
