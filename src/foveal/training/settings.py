"""Recipe settings: frozen dataclasses that declare the ranges of their values."""

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
from foveal.training.ranges import Amount, Images


@dataclass(frozen=True)
class Data:
    """The training data.

    Attributes:
        name: a named dataset or a folder.
        size: height and width in pixels to which images are resized; None keeps their size.
        short_side: length in pixels of the short side of photographs that keep their proportions
            (see `ShortSide`), instead of `size`.
        channels: 1 for grey, 3 for colour; None keeps the images' channels.
        masks: folder with a mask per training image, laid out like the images' folder; attention
            is drawn to the masks. Empty for none.
        groups: images that must stay in one split: a CSV file (file,group) or a regular expression
            over paths (see `read_groups`). Empty for none.
        limit: number of training images to use, balanced over classes; 0 for all.
        draw: random seed for choosing them.
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
        """Target size of images; None keeps their size."""
        return self.size if self.short_side is None else ShortSide(self.short_side)


@dataclass(frozen=True)
class Training:
    """Optimiser and training-loop settings.

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
        warmup: fraction of the steps until the maximum learning rate.
        label_smoothing: fraction of the target that is spread over all classes.
        focal: exponent of the focal loss (Lin et al. 2017), which gives easy images less weight; 0
            for plain cross-entropy.
        balance: exponent b of the class weights: a class of n images has the weight n ** -b,
            scaled to a mean of 1 over the training images. 0 for equal weights, 1 for full
            balance. Above 0, the best epoch is chosen by mean per-class accuracy.
        mask_weight: weight of the masks' loss (Yan et al. 2019).
        clip: maximum norm of the gradient; 0 for none.
        average: decay of the moving average of the weights, which is validated and kept (Polyak &
            Juditsky 1992); 0 for none.
        recalibrate: number of training images on which the statistics of batch normalisation are
            measured again for the averaged weights, before each validation (Izmailov et al. 2018).
            0 averages the statistics instead, which lags if the weights change fast.
        keep: which weights are kept: `best` on the validation images, or `last`.
        start: zoo name or run folder that provides the initial weights of all parts with the same
            names; empty for random weights.
        start_part: the only part to initialise with them, such as `backbone`; empty for all.
        freeze: part of the model that is not trained, such as `detector`; empty for none.
        freeze_depth: depth of the backbone, from 1, down to which it is not trained; 0 for none.
        fixed_norm: whether batch normalisation of the backbone keeps its statistics while the rest
            is trained. A batch of photographs of one size gives poor statistics.
        cache: whether the frozen features of all images, and of mirrored ones with `augment.flip`,
            are computed once and stored on disk during training.
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
class Recipe:
    """A model, its data and its training run.

    Attributes:
        name: name of the recipe and of its run folder; not a path.
        model: name and arguments of the model.
        about: a line for the model's card, such as a caveat.
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
        """Return plain values for YAML and cards."""
        plain = dataclasses.asdict(self)
        if plain["data"]["size"] is not None:
            plain["data"]["size"] = list(plain["data"]["size"])
        return plain
