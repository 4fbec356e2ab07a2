"""Decoders: heads that rebuild the image from patches and locations.

The canvas shows the patches at their locations on an empty image: (B, C + 1, H, W), 0 outside the
patches, with the mask of the pixels that they cover as the last channel.
"""

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
    """A head that rebuilds the image instead of classifying it."""

    rebuilds = True


class PatchDecoder(Decoder):
    """A decoder that reads the patches and locations of an image as one vector (`join_patches`).

    It always rebuilds images at its own `size`, and then resizes them to the size of the canvas.

    Args:
        keypoints: number K of patches.
        patch_size: side P of a patch in pixels.
        in_channels: channels C of the images.
        size: height and width in pixels at which images are rebuilt.
        softness_px: width in pixels of the mask's soft edges, which pass the gradient on to the
            locations; see `Head`.
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
    def in_features(self) -> int:
        """Dimension of the vector of all patches and locations of an image."""
        return self.keypoints * (self.in_channels * self.patch_size**2 + 2)


class MLPDecoder(PatchDecoder):
    """A multilayer perceptron on the patches' pixels and locations.

    The original project, "Unboxing the Black Box", also rebuilt images with a perceptron. All
    arguments except `widths` are those of `PatchDecoder`.

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
        in_features = self.in_features
        for width in widths:
            layers += [nn.Linear(in_features, width), nn.GELU()]
            in_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(in_features, in_channels * math.prod(size)))

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return the rebuilt images at the size of the canvas."""
        values = self.layers(join_patches(patches, located))
        images = values.unflatten(1, (self.in_channels, *self.size))
        return rebuilt_output(resize_like(images, canvas_of(located)).sigmoid())


class ConvDecoder(Decoder):
    """A U-Net that reads the canvas (Ronneberger et al. 2015).

    Even its finest features have only one location per 2x2 pixels: the pixels are rearranged into
    channels before the first convolution and back after the last one (Shi et al. 2016, "sub-pixel
    convolution"). This takes a third of the cost of a U-Net with one location per pixel.

    Args:
        in_channels: channels C of the images.
        widths: output channels at each resolution, from fine to coarse; each resolution is half of
            the previous one.
        softness_px: width in pixels of the mask's soft edges, which pass the gradient on to the
            locations; see `Head`.
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
        down = [_convolutions(4 * (in_channels + 1), widths[0], stride=1)]
        up = []
        for fine_width, coarse_width in pairwise(widths):
            down.append(_convolutions(fine_width, coarse_width, stride=2))
            up.append(_convolutions(coarse_width + fine_width, fine_width, stride=1))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.last = nn.Conv2d(widths[0], 4 * in_channels, 3, padding=1)

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return the rebuilt images at the size of the canvas."""
        canvas = canvas_of(located)
        height, width = canvas.shape[-2:]
        padded = F.pad(canvas, (0, width % 2, 0, height % 2))  # to even sides
        features = F.pixel_unshuffle(padded, 2)  # (B, 4 (C + 1), H / 2, W / 2)
        skips = []
        for block in self.down:
            features = block(features)
            skips.append(features)
        skips.pop()  # the deepest features, from which the upward path starts
        for block in reversed(self.up):
            skip = skips.pop()
            features = block(torch.cat([resize_like(features, skip), skip], dim=1))
        images = F.pixel_shuffle(self.last(features), 2)[..., :height, :width]
        return rebuilt_output(images.sigmoid())


class VAEDecoder(PatchDecoder):
    """A variational autoencoder from patches to a latent vector to the image.

    The encoder returns a normal distribution of the latent vector (Kingma & Welling 2014). In
    training the decoder reads a sample from it, in evaluation its mean. From a sample of the prior,
    a standard normal distribution, the decoder generates a new image. All arguments except `latent`
    and `width` are those of `PatchDecoder`.

    Args:
        latent: dimension L of the latent vector.
        width: width of the hidden layers; the convolutions have a quarter as many channels.
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
            nn.Linear(self.in_features, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 2 * latent),
        )
        # The decoder starts at a quarter of the resolution, rounded up, and doubles it twice.
        self.initial_size = [-(-side // 4) for side in size]
        channels = max(width // 4, 1)
        last_channels = max(channels // 2, 1)
        self.spread = nn.Sequential(  # latent vector -> features of the initial size
            nn.Linear(latent, width),
            nn.GELU(),
            nn.Linear(width, channels * math.prod(self.initial_size)),
        )
        self.fine = nn.ModuleList(
            _convolutions(channels, out_channels, stride=1)
            for out_channels in (channels, last_channels)
        )
        self.last = nn.Conv2d(last_channels, in_channels, 3, padding=1)

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return the rebuilt images, and the mean and log-variance of their latent vectors."""
        mean, log_variance = self.encode(join_patches(patches, located)).chunk(2, dim=1)
        latents = mean
        if self.training:
            latents = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        images = resize_like(self.decode(latents), canvas_of(located))
        return rebuilt_output(images.sigmoid(), latent=(mean, log_variance))

    def decode(self, latents: Tensor) -> Tensor:
        """Return images (B, C, H, W), before the sigmoid, for latent vectors (B, L)."""
        features = self.spread(latents).unflatten(1, (-1, *self.initial_size))
        for block in self.fine:
            features = block(F.interpolate(features, scale_factor=2.0))
        height, width = self.size
        return self.last(features)[..., :height, :width]

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Return images (count, C, H, W) in [0, 1] from latent vectors sampled from the prior."""
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(count, self.latent, generator=generator).to(self.last.weight)
        with evaluation_mode(self):
            return self.decode(latents).sigmoid()


# Names of the decoders in settings of the preset `reconstructor`. The registry of heads (`HEADS`)
# lists the same classes as "mlp-decoder", "conv-decoder" and "vae-decoder".
DECODERS: dict[str, type[Head]] = {"mlp": MLPDecoder, "conv": ConvDecoder, "vae": VAEDecoder}


def join_patches(patches: Tensor, located: Located) -> Tensor:
    """Return the pixels and locations of each image's patches as one vector (B, K (C P P + 2))."""
    xy = located.xy.to(patches.dtype)
    return torch.cat([patches.flatten(1), xy.flatten(1)], dim=1)


def canvas_of(located: Located) -> Tensor:
    """Return the canvas (B, C + 1, H, W), which a model provides to every decoder."""
    assert located.canvas is not None
    return located.canvas


def rebuilt_output(images: Tensor, latent: tuple[Tensor, Tensor] | None = None) -> HeadOutput:
    """Return the output of a decoder, with logits (B, 0) because there are no classes.

    Args:
        images: the rebuilt images (B, C, H, W).
        latent: mean and log-variance (B, L) of the latent vectors, for a variational autoencoder.
    """
    # Not len(images), which would be exported to ONNX as a constant batch size.
    no_logits = images.new_zeros(images.shape[0], 0)
    return HeadOutput(no_logits, rebuilt=images, latent=latent)


def resize_like(images: Tensor, reference: Tensor) -> Tensor:
    """Return images or features (B, C, h, w) resized bilinearly to the size of `reference`."""
    if images.shape[-2:] == reference.shape[-2:]:
        return images
    return F.interpolate(images, reference.shape[-2:], mode="bilinear", align_corners=False)


def _convolutions(in_channels: int, width: int, stride: int) -> nn.Module:
    """Return two convolutions with batch normalisation and ReLU; only the first is strided."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
