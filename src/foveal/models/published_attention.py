"""The attention net of the project "Unboxing the Black Box" as published, defects included."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.backbones.vgg import halve
from foveal.explanation import Explanation
from foveal.foundation.arguments import Range
from foveal.foundation.ranges import Channels
from foveal.images import View
from foveal.models.abilities import Ability
from foveal.models.attention_maps import Attended, at_size
from foveal.models.image_model import ImageModel
from foveal.models.inputs import Inputs

OUTPUTS = 1000  # of the last layer, for any number of classes
GRID = 4  # side of the feature map that the linear layers read, for images of 32x32 pixels


class PublishedAttention(ImageModel):
    """The attention net of the original project, reimplemented for comparison.

    The original project is "Unboxing the Black Box: Explainable and Efficient CNNs with Focus and
    Attention". The defects of its net are preserved:

    - It classifies from the whole last feature map. Only 128 of the 4,224 features that the
      classifier reads are weighted by attention, so the map explains little of the decision.
    - It ends in a log-softmax, and was trained with a loss that applies a log-softmax again. This
      has no effect, because the log-softmax of a log-softmax is the same.
    - It has 1000 outputs for any number of classes; all but the first `num_classes` are unused.
    - 2.2 of its 3 million parameters are one linear layer on a flattened map, which restricted the
      original to images of 32x32 pixels. Here maps of other sizes are averaged to 4x4 instead.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes, at most 1000.
        inputs: the images that the model expects.

    Raises:
        UserError: more than 1000 classes.
    """

    name = "published-attention"
    evidence_kind = "maps"
    abilities = frozenset({Ability.CLASSES, Ability.MAPS, Ability.GIVEN_MAPS})

    def __init__(
        self,
        in_channels: Channels = 3,
        num_classes: Annotated[int, Range(1, OUTPUTS)] = 10,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(in_channels, num_classes, inputs)
        self.first, self.second, self.third = (
            nn.Sequential(
                nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
            )
            for channels, width in ((in_channels, 64), (64, 128), (128, 256))
        )
        self.from_local = nn.Conv2d(128, 128, 1, bias=False)
        self.from_global = nn.Conv2d(256, 128, 1, bias=False)
        self.score = nn.Conv2d(128, 1, 1)
        self.head = nn.Sequential(
            nn.Dropout(0.3),
            nn.Linear(256 * GRID**2 + 128, 512),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(512, 256),
            nn.ReLU(),
            nn.Linear(256, OUTPUTS),
            nn.LogSoftmax(dim=1),
        )

    def attend(self, view: View) -> Attended:
        """Return the features of two layers for B images, and one map.

        The map (B, H/2, W/2) weights only the features of the first of these layers.
        """
        local = self.second(halve(self.first(view.whole())))  # (B, 128, H/2, W/2)
        deep = self.third(halve(local))  # (B, 256, H/4, W/4)
        return Attended([local, deep], [self._weigh(local, deep)])

    def decide(self, view: View, given: Attended) -> Explanation:
        """Classify from features and maps, given as `attend` returns them."""
        (local, deep), maps = given
        attention_map = maps[0]
        attended = (attention_map[:, None] * local).sum(dim=(-2, -1))  # (B, 128)
        pooled = F.adaptive_avg_pool2d(halve(deep), GRID)
        outputs = self.head(torch.cat([pooled.flatten(1), attended], dim=1))  # (B, 1000)
        logits = outputs[:, : self.num_classes]
        return Explanation(view.whole(), logits, maps=at_size(maps, view.size))

    def _weigh(self, local: Tensor, deep: Tensor) -> Tensor:
        """Return the map (B, H/2, W/2), which sums to 1 over each image."""
        size = (local.shape[-2], local.shape[-1])
        query = F.interpolate(self.from_global(deep), size, mode="bilinear")
        scores = self.score(F.relu(self.from_local(local) + query))
        return scores.flatten(1).softmax(dim=-1).unflatten(1, size)
