"""Training without labels: reconstruction of images from their patches."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.detectors import Located
from foveal.models.focus import FocusNet
from foveal.training.objectives.objective import Objective
from foveal.training.objectives.reconstruction.losses import (
    RandomFeatures,
    divergence,
    movement,
    overlap,
)
from foveal.training.settings import Recipe

# Mean and logarithm of the variance (B, L) of the latent vectors of a variational autoencoder; None
# for a head that has none.
Latent = tuple[Tensor, Tensor] | None


class Reconstruction(Objective):
    """Minimises the error of images that the model reconstructs from patches.

    A batch consists of uint8 images (B, C, H, W) and labels, which are ignored. The recipe's
    `rebuild` sets the weights of the terms of the loss. With `rebuild.adversarial`, a discriminator
    is trained too, to tell small regions of real images from reconstructed ones, by hinge losses
    (Lim & Ye 2017) and with spectral normalisation for stability (Miyato et al. 2018).
    """

    columns = ("train_loss", "train_mse", "val_loss", "val_mse")
    monitor, mode = "val_mse", "min"

    model: FocusNet
    discriminator: "Discriminator | None"

    def __init__(self, model: FocusNet, recipe: Recipe, steps: int):
        super().__init__(model, recipe, steps)
        self.rebuild = recipe.rebuild
        # `training_step` takes the optimizer steps itself, because there may be two optimizers.
        self.automatic_optimization = False
        self.features = RandomFeatures(model.in_channels) if self.rebuild.perceptual else None
        self.discriminator = Discriminator(model.in_channels) if self.rebuild.adversarial else None

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Take an optimizer step on a batch: first of the model, then of the discriminator."""
        images = self.recipe.augment(self.floats(batch[0]))
        optimizers = self.optimizers()
        model_optimizer, *others = optimizers if isinstance(optimizers, list) else [optimizers]
        rebuilt, located, latent = self._rebuilt(images)
        loss, mse = self._loss(images, rebuilt, located, latent)
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)  # this loss trains only the model
            loss = loss - self.rebuild.adversarial * self.discriminator(rebuilt).mean()
            self.discriminator.requires_grad_(True)
        self.check_loss(loss, index)
        self._step(model_optimizer, loss)
        if self.discriminator is not None:
            real_loss = F.relu(1 - self.discriminator(images)).mean()
            fake_loss = F.relu(1 + self.discriminator(rebuilt.detach())).mean()
            (discriminator_optimizer,) = others
            self._step(discriminator_optimizer, real_loss + fake_loss)
        schedules = self.lr_schedulers() or []
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            schedule.step()  # type: ignore[call-arg]
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        self.log("train_mse", mse, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Measure the loss and the mean squared error on one batch."""
        images = self.floats(batch[0])
        rebuilt, located, latent = self._rebuilt(images)
        loss, mse = self._loss(images, rebuilt, located, latent)
        count = len(images)
        self.log("val_loss", loss, batch_size=count, sync_dist=True)
        self.log("val_mse", mse, prog_bar=True, batch_size=count, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return the model's optimizer, followed by the discriminator's if there is one."""
        optimizers = [super().configure_optimizers()]
        if self.discriminator is not None:
            rate = self.recipe.training.lr
            # Low momentum, because the images to judge change too (Radford et al. 2016).
            betas = (0.5, 0.99)
            optimizers.append(
                self.with_schedule(torch.optim.Adam(self.discriminator.parameters(), rate, betas))
            )
        return optimizers if len(optimizers) > 1 else optimizers[0]

    def _rebuilt(self, images: Tensor) -> tuple[Tensor, Located, Latent]:
        """Return the reconstructed images, the locations of their patches, and the latent vectors.

        Reconstructions are (B, C, H, W), in [0, 1] as the images.
        """
        view = self.model.view(images)
        _, located, output = self.model.read(view, self.model.locate(view))
        assert output.rebuilt is not None
        return output.rebuilt, located, output.latent

    def _loss(
        self, images: Tensor, rebuilt: Tensor, located: Located, latent: Latent
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted loss without the adversarial term, and the mean squared error."""
        weights = self.rebuild
        mse = F.mse_loss(rebuilt, images)
        loss = weights.pixel * mse
        if self.features is not None:
            loss = loss + weights.perceptual * self.features.distance(rebuilt, images)
        if weights.diversity:
            size = (images.shape[-2], images.shape[-1])
            covered = overlap(located.xy, self.model.patch_size, size)
            loss = loss + weights.diversity * covered
        if weights.movement:
            loss = loss + weights.movement * movement(located.xy)
        if latent is not None:
            kl = divergence(*latent) / images[0].numel()
            loss = loss + weights.kl * kl
        return loss, mse

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        """Take one optimizer step, with the gradients clipped to the recipe's maximum norm."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.recipe.training.clip:
            self.clip_gradients(optimizer, self.recipe.training.clip, "norm")
        optimizer.step()


class Discriminator(nn.Module):
    """Classifies small regions of images as real or reconstructed (PatchGAN, Isola et al. 2017).

    Args:
        in_channels: channels of the images.
        width: channels of the first convolution; later ones have twice as many.
    """

    def __init__(self, in_channels: int, width: int = 32):
        super().__init__()
        # Input channels, output channels and stride of each convolution.
        convolutions = ((in_channels, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 1))
        layers: list[nn.Module] = []
        for channels_in, channels_out, stride in convolutions:
            conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)
            layers += [nn.utils.parametrizations.spectral_norm(conv), nn.LeakyReLU(0.2)]
        last = nn.Conv2d(2 * width, 1, 3, padding=1)
        self.layers = nn.Sequential(*layers, nn.utils.parametrizations.spectral_norm(last))

    def forward(self, images: Tensor) -> Tensor:
        """Return a score for each region of images (B, C, H, W) in [0, 1], higher for real ones.

        The scores are (B, 1, h, w).
        """
        scores: Tensor = self.layers(images * 2 - 1)
        return scores
