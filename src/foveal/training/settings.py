"""Settings of recipes: frozen dataclasses, whose annotations declare the ranges of the values.

The sections `augment`, `rebuild`, `honesty`, `large` and `crops` are defined next to the code that
uses them.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated

from foveal.foundation.arguments import OneOf, Range
from foveal.foundation.ranges import Fraction, Seed, Side
from foveal.images.sizing import STEP, ShortSide, Sizing
from foveal.training.augment import Augment
from foveal.training.objectives.crops.settings import Crops
from foveal.training.objectives.honesty.settings import Honesty
from foveal.training.objectives.ranking.settings import Large
from foveal.training.objectives.reconstruction.settings import Rebuild
from foveal.training.ranges import Amount, ImageCount

MAX_DEPTH = 64  # maximum number of stages of a backbone


@dataclass(frozen=True)
class Data:
    """The training data.

    Attributes:
        name: name of a dataset, or a folder of images.
        size: height and width in pixels to which images are resized; None keeps their size.
        short_side: length in pixels of the short side to which photographs are resized while
            keeping their aspect ratio (see `ShortSide`). It is an alternative to `size`.
        channels: 1 for grey, 3 for colour; None keeps the images' channels.
        masks: folder with a mask per training image, laid out like the images' folder; attention
            maps are trained to match the masks. Empty for none.
        groups: images that must stay in one split: a CSV file (file,group) or a regular expression
            over paths (see `read_groups`). Empty for none.
        limit: number of training images to use, balanced over classes; 0 for all.
        draw: random seed for choosing these images.
    """

    name: str = "mnist-5k"
    size: tuple[Side, Side] | None = None
    short_side: Annotated[int, Range(STEP, 4096)] | None = None
    channels: Annotated[int, OneOf((1, 3))] | None = None
    masks: str = ""
    groups: str = ""
    limit: ImageCount = 0
    draw: Seed = 0

    @property
    def sizing(self) -> Sizing | None:
        """Size to which images are resized, from `size` or `short_side`; None keeps their size."""
        return self.size if self.short_side is None else ShortSide(self.short_side)


@dataclass(frozen=True)
class Training:
    """Settings of the optimizer, the loss, the training loop and the initial weights.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step.
        lr: maximum learning rate.
        weight_decay: weight decay of AdamW and SGD, for weights of two dimensions or more.
        optimizer: `adamw`, `sgd` (Nesterov momentum) or `adadelta`.
        momentum: momentum of SGD.
        bias_lr: learning rate of the biases of batch normalisation, as a multiple of `lr`
            (Page 2019, "How to train your ResNet").
        schedule: `one-cycle` (Smith & Topin 2018) or `constant`.
        warmup: fraction of the steps in which the learning rate rises to its maximum.
        label_smoothing: fraction of the target that is spread over all classes.
        focal: exponent of the focal loss (Lin et al. 2017), which gives easy images less weight; 0
            for plain cross-entropy.
        balance: exponent b of the class weights: a class of n images has the weight n ** -b,
            scaled to a mean of 1 over the training images. 0 for equal weights of images, 1 for
            equal weights of classes. Above 0, the best epoch is chosen by mean per-class accuracy.
        mask_weight: weight of the loss that compares attention maps with masks (Yan et al. 2019).
        clip: maximum norm of the gradient; 0 for none.
        average: decay per step of a moving average of the weights, which is validated and kept
            instead of the weights themselves (Polyak & Juditsky 1992); 0 for none.
        recalibrate: number of training images on which the statistics of batch normalisation are
            measured again for the averaged weights, before each validation (Izmailov et al. 2018).
            With 0, the statistics are averaged like the weights, and lag behind weights that
            change fast.
        keep: which weights are kept: those of the epoch that is `best` on the validation images, or
            of the `last` one.
        start: zoo name or run folder of a trained model, from which the initial weights of all
            parts with the same names are copied; empty for random weights.
        start_part: the only part whose weights are copied, such as `backbone`; empty for all.
        freeze: part of the model that is not trained, such as `detector`; empty for none.
        freeze_depth: number of the backbone's stages, from the first one, that are not trained; 0
            for none.
        fixed_norm: whether batch normalisation of the backbone keeps its statistics while the rest
            is trained. This suits photographs: all those in a batch have one size, so a batch
            gives poor statistics.
        cache: whether the features of the frozen stages are computed once and stored on disk during
            training, for all images and, with `augment.flip`, for the mirrored images too.
        linear_start: whether the classifier starts as a linear layer fitted on the frozen features
            (with `cache`).
        seed: random seed of the weights, the order of the images and the augmentation.
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
    recalibrate: ImageCount = 0
    keep: Annotated[str, OneOf(("best", "last"))] = "best"
    start: str = ""
    start_part: str = ""
    freeze: str = ""
    freeze_depth: Annotated[int, Range(0, MAX_DEPTH)] = 0
    fixed_norm: bool = False
    cache: bool = False
    linear_start: bool = False
    seed: Seed = 0


@dataclass(frozen=True)
class Recipe:
    """A recipe: the settings of a model, its data and its training run.

    Attributes:
        name: name of the recipe and, by default, of its run folder; not a path.
        model: `name` and arguments of the model.
        about: a line of text for the model's card, such as a caveat.
        data: the training data.
        augment: augmentation of the training images.
        training: settings of the optimizer and the training loop.
        rebuild: settings for models that rebuild images from patches.
        honesty: terms of the loss that keep keypoints from revealing the class.
        large: settings for models that read parts of large images.
        crops: settings for models that read crops.
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
        """Return the recipe as plain values, for a YAML file or a card."""
        plain = dataclasses.asdict(self)
        if plain["data"]["size"] is not None:
            plain["data"]["size"] = list(plain["data"]["size"])
        return plain
