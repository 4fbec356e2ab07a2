"""Settings of training without labels: the weights of the terms of a reconstruction's loss."""

from dataclasses import dataclass

from foveal.training.ranges import Amount


@dataclass(frozen=True)
class Rebuild:
    """Weights of the terms of a reconstruction's loss; 0 disables a term.

    Attributes:
        pixel: weight of the mean squared error of pixels in [0, 1].
        perceptual: weight of the mean squared error of a random network's features (Liu et al.
            2021).
        diversity: weight of the overlap of patches; this term spreads the keypoints out.
        movement: weight of the variance of keypoints over images; this term limits how much the
            locations can encode.
        kl: weight of the Kullback-Leibler divergence of a variational autoencoder's latent vectors
            from the prior, in nats per value of the image.
        adversarial: weight of the loss that rewards images which a discriminator takes for real. It
            judges small regions and is trained alongside the model.
    """

    pixel: Amount = 1.0
    perceptual: Amount = 0.0
    diversity: Amount = 0.0
    movement: Amount = 0.0
    kl: Amount = 0.0
    adversarial: Amount = 0.0
