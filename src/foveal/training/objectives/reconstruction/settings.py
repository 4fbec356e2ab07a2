"""Settings of a reconstruction: the weights of its terms."""

from dataclasses import dataclass

from foveal.training.ranges import Amount


@dataclass(frozen=True)
class Rebuild:
    """Weights of the terms of a reconstruction's loss; 0 disables a term.

    Attributes:
        pixel: weight of the mean squared error of pixels in [0, 1].
        perceptual: weight of the mean squared error of a random network's features (Liu et al.
            2021).
        diversity: weight of the overlap of patches, which spreads keypoints out.
        movement: weight of the keypoints' variance over images, which limits what their locations
            encode.
        kl: weight of the divergence of a VAE's latent vectors from the prior, in nats per value of
            the image.
        adversarial: weight of a discriminator of small regions, which is trained alongside.
    """

    pixel: Amount = 1.0
    perceptual: Amount = 0.0
    diversity: Amount = 0.0
    movement: Amount = 0.0
    kl: Amount = 0.0
    adversarial: Amount = 0.0
