"""The settings of a recipe: frozen dataclasses whose values are checked where they are declared."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated

from foveal.foundation.arguments import OneOf, Range
from foveal.foundation.ranges import Fraction, Seed, Side
from foveal.images.sizing import STEP, ShortSide, Sizing
from foveal.training.augment import Augment

Amount = Annotated[float, Range(0, 1_000_000, below=True)]
SELECTIONS = ("distil", "greedy", "gumbel", "perturbed", "peaks")
Images = Annotated[int, Range(0, 2**40)]  # a number of them; 0 for all or none


@dataclass(frozen=True)
class Data:
    """What to train on.

    Attributes:
        name: a named dataset or a folder.
        size: height and width in pixels that images are resized to; None keeps theirs.
        short_side: in pixels, of photographs that keep their proportions (see `ShortSide`), in
            place of `size`.
        channels: 1 for grey, 3 for colour; None takes what the images have.
        masks: a folder built like that of the images, with a mask for each training image that
            attention maps are drawn to; empty for none.
        groups: images that stay in one split: a CSV file (file,group), or a regular expression over
            paths (see `read_groups`); empty for none.
        limit: training images to use, as many of each class as can be; 0 for all.
        draw: seed of which those are.
    """

    name: str = "mnist-5k"
    size: tuple[Side, Side] | None = None
    short_side: Annotated[int, Range(STEP, 4096)] | None = None
    channels: Annotated[int, OneOf((1, 3))] | None = None
    masks: str = ""
    groups: str = ""
    limit: Images = 0
    draw: Seed = 0

    @property
    def sizing(self) -> Sizing | None:
        """What images are resized to; None keeps their size."""
        return self.size if self.short_side is None else ShortSide(self.short_side)


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        epochs: passes over the training images.
        batch_size: images in a step.
        lr: greatest learning rate.
        weight_decay: of AdamW and SGD, on weights of two dimensions or more.
        optimizer: `adamw`, `sgd` (Nesterov momentum) or `adadelta`.
        momentum: of SGD.
        bias_lr: the learning rate of batch normalisation's biases, as a multiple of `lr`
            (Page 2019, "How to train your ResNet").
        schedule: `one-cycle` (Smith & Topin 2018) or `constant`.
        warmup: share of the steps before the greatest learning rate.
        label_smoothing: share of the target spread over all classes.
        focal: exponent of the focal loss (Lin et al. 2017), which weighs easy images less; 0 for
            plain cross-entropy.
        balance: how far rare classes weigh more in the loss: each by its count to the power of
            minus this, the mean over the training images 1; 0 for all alike, 1 for full balance.
            Above 0, the best weights are those of the greatest mean accuracy of a class.
        mask_weight: of the masks' loss beside that of the classes (Yan et al. 2019).
        clip: greatest norm of the gradient; 0 for none.
        average: decay of the weights' moving average, which is what is validated and kept
            (Polyak & Juditsky 1992); 0 for none.
        recalibrate: training images on which batch normalisation's statistics are measured anew
            for the averaged weights, before each validation (Izmailov et al. 2018); 0 for none,
            then they are averaged as the weights are, and lag where the weights move fast.
        keep: which weights are kept, `best` on the validation images or `last`.
        start: a zoo name or run folder whose weights are taken over before training, of all parts
            named as in this model; empty for new weights.
        start_part: the one part whose weights are taken over, such as `backbone`; empty for all.
        freeze: part of the model that is not trained, such as `detector`; empty for none.
        freeze_depth: depth, from 1, of the backbone's features down to which it is not trained; 0
            for none.
        fixed_norm: batch normalisation of the backbone keeps the statistics that it has, also where
            the rest is trained: those of a batch of one size of photographs say little.
        cache: the frozen features of all images are computed once, as they are and mirrored (with
            `augment.flip`), and kept on disk while the rest trains.
        linear_start: the classifier starts as the linear layer on the frozen features that
            validates best, fitted before (with `cache`).
        seed: of the weights, the order of the images and the augmentation.
    """

    epochs: Annotated[int, Range(1, 1_000_000)] = 10
    batch_size: Annotated[int, Range(1, 1_000_000)] = 256
    lr: Amount = 3e-3
    weight_decay: Amount = 1e-2
    optimizer: Annotated[str, OneOf(("adamw", "sgd", "adadelta"))] = "adamw"
    momentum: Fraction = 0.9
    bias_lr: Amount = 1.0
    schedule: Annotated[str, OneOf(("one-cycle", "constant"))] = "one-cycle"
    warmup: Fraction = 0.2
    label_smoothing: Fraction = 0.0
    focal: Amount = 0.0
    balance: Amount = 0.0
    mask_weight: Amount = 0.1
    clip: Amount = 5.0
    average: Fraction = 0.0
    recalibrate: Images = 0
    keep: Annotated[str, OneOf(("best", "last"))] = "best"
    start: str = ""
    start_part: str = ""
    freeze: str = ""
    freeze_depth: Annotated[int, Range(0, 64)] = 0
    fixed_norm: bool = False
    cache: bool = False
    linear_start: bool = False
    seed: Seed = 0


@dataclass(frozen=True)
class Rebuild:
    """What a `reconstructor` makes small: terms of the loss and their weights, 0 for none.

    Attributes:
        pixel: mean squared error of the pixels, from 0 to 1.
        perceptual: mean squared error of a random net's features (Liu et al. 2021).
        diversity: overlap of the patches, so that keypoints do not pile up.
        movement: how far keypoints move from image to image, so that their places tell little.
        kl: divergence of a VAE's latent vectors from the prior, in nats for each number of the
            image.
        adversarial: of a discriminator of small regions, trained beside it.
    """

    pixel: Amount = 1.0
    perceptual: Amount = 0.0
    diversity: Amount = 0.0
    movement: Amount = 0.0
    kl: Amount = 0.0
    adversarial: Amount = 0.0


@dataclass(frozen=True)
class Honesty:
    """What keeps the class out of the places of a focus model: weights of terms of the loss.

    Attributes:
        adversary: of a probe that reads the class off the keypoints, trained along, its gradient
            reversed into the detector (Ganin & Lempitsky 2015, arXiv:1409.7495).
        probes: how many such probes there are, from weights of their own: what fools one of them
            need not fool the others.
        dependence: of the kernel dependence between the keypoints and the classes of a batch
            (centred kernel alignment, Cortes et al. 2012).
        swap: of the classes of other images, whose pixels are cut at these keypoints.
        still: the places are judged also where they lie in the image before it was moved: moves
            blur what places tell, and in use nothing is moved.
        ramp: share of the steps in which `adversary` and `dependence` grow from nothing to their
            weights, so that the model learns to look before it learns to keep quiet.
        settle: share of the steps, the last ones, in which the places stand still and are told
            nothing any more: what decides from them catches up with places that moved until then.
            The learning rate falls to nothing before, and rises and falls once more.
    """

    adversary: Amount = 0.0
    dependence: Amount = 0.0
    swap: Amount = 0.0
    still: bool = False
    ramp: Fraction = 0.0
    probes: Annotated[int, Range(1, 64)] = 1
    settle: Fraction = 0.0


@dataclass(frozen=True)
class Large:
    """How a `high-res` model is trained beside its answers.

    Attributes:
        first: a dataset of smaller images for the first epochs, as many as the others and with
            the same tasks; empty for none.
        first_epochs: how many those are.
        first_keypoints: patches that are cut in them; 0 for as many as later.
        distil: weight, after the first epochs, of what the detector's scores are misranked by
            against the weights that the patches were given, which teaches it to find such patches.
    """

    first: str = ""
    first_epochs: Annotated[int, Range(0, 1_000_000)] = 0
    first_keypoints: Annotated[int, Range(0, 4096)] = 0
    distil: Amount = 1.0


@dataclass(frozen=True)
class Crops:
    """How a model of crops learns where to look.

    Attributes:
        select: how the detector learns on the features of all candidates, with `training.cache`:
            `distil` (the weights of a head that reads them all), `greedy` (those that decrease
            that head's loss most), `gumbel` (drawn with noise, taught by the head's weights),
            `perturbed` (by the gradient of a perturbed top-k) or `peaks` (nothing is learned).
        head_epochs: in which the head learns then.
        detector_epochs: in which the detector does, for `distil` and `greedy`.
        dropout: fraction of the features dropped then.
        distil: weight, in the training proper, of what the detector's scores are misranked by
            against the weights that the crops were given.
    """

    select: Annotated[str, OneOf(SELECTIONS)] = "distil"
    head_epochs: Annotated[int, Range(0, 10_000)] = 8
    detector_epochs: Annotated[int, Range(0, 10_000)] = 8
    dropout: Fraction = 0.2
    distil: Amount = 1.0


@dataclass(frozen=True)
class Recipe:
    """Model, data and training of one zoo name.

    Attributes:
        name: of the recipe and of what it trains; a run folder is named by it, so it is no path.
        about: a line for the card: what whoever meets the model should know.
        model: its name and arguments.
    """

    name: str
    model: dict[str, object]
    about: str = ""
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    training: Training = field(default_factory=Training)
    rebuild: Rebuild = field(default_factory=Rebuild)
    honesty: Honesty = field(default_factory=Honesty)
    large: Large = field(default_factory=Large)
    crops: Crops = field(default_factory=Crops)

    def to_dict(self) -> dict[str, object]:
        """Return plain values, as YAML and the card keep them."""
        plain = dataclasses.asdict(self)
        if plain["data"]["size"] is not None:
            plain["data"]["size"] = list(plain["data"]["size"])
        return plain
