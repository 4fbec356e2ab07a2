"""Models that ONNX Runtime runs: they answer, explain and are measured as any other."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from foveal.detectors import Located
from foveal.explanation import Explanation
from foveal.export.about import About
from foveal.export.graph import IMAGES
from foveal.export.seams import KEYPOINTS, LOCAL, SCALES, WEIGHTS
from foveal.export.session import Graph
from foveal.images import View
from foveal.models.abilities import Ability
from foveal.models.attention_model import AttentionModel
from foveal.models.classifier import ImageClassifier
from foveal.models.focus_model import FocusModel
from foveal.models.image_model import ImageModel
from foveal.observation import COMPUTED


class Parts:
    """The named tensors of a graph: those of an explanation, and seams.

    Args:
        graph: that runs.
        names: for each part the name of its tensor.
    """

    def __init__(self, graph: Graph, names: Mapping[str, str]):
        self.graph = graph
        self.names = dict(names)
        self.shown = [name for name in COMPUTED if name in names]

    def like(self, stem: str) -> list[str]:
        """Return the names of all parts that begin with a stem and a dot, in order."""
        return [name for name in self.names if name.startswith(f"{stem}.")]

    def observe(self, **given: Tensor) -> Explanation:
        """Return what the graph computes; arguments as of `run`."""
        found: dict[str, Any] = self.run(given, self.shown)
        logits = found.pop("logits", None)
        if logits is None:  # of a model that names no classes
            logits = next(iter(found.values())).new_zeros(len(given[IMAGES]), 0)
        return Explanation(given[IMAGES], logits, **found)

    def run(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """Return the parts `wanted` for given ones; one that is given is given back."""
        tensors = {self.names.get(name, name): value for name, value in given.items()}
        answers = self.graph.run(tensors, [self.names[name] for name in wanted])
        return {name: answers[self.names[name]] for name in wanted}


class OnnxClassifier(ImageClassifier):
    """A classifier run by ONNX Runtime, in one run; its graph normalises the images by itself.

    Args:
        about: what the graph says of the model.
        parts: of the graph.
    """

    name = "onnx"

    def __init__(self, about: About, parts: Parts):
        super().__init__(about.in_channels, about.num_classes, about.inputs)
        self.about, self.parts = about, parts

    def observe(self, view: View) -> Explanation:
        """Return the logits for B images, and what they were computed from."""
        return self.parts.observe(images=view.whole())


class OnnxFocus(OnnxClassifier, FocusModel):
    """A focus model run by ONNX Runtime: whole, or with the keypoints held where given.

    Args:
        about: what the graph says of the model.
        parts: of the graph.
    """

    name = "onnx-focus"

    def locate(self, view: View) -> Located:
        """Return keypoints and scales, if the model has any, for B images."""
        found = self.parts.run(
            {IMAGES: view.whole()},
            [name for name in (KEYPOINTS, SCALES) if name in self.parts.names],
        )
        return Located(found[KEYPOINTS], found.get(SCALES))

    def decide(self, view: View, located: Located) -> Explanation:
        """Classify from the patches at given locations of B images.

        Raises:
            ValueError: the model's patches have scales, and none are given.
        """
        given = {IMAGES: view.whole(), KEYPOINTS: located.xy}
        if SCALES in self.parts.names:
            if located.scale is None:
                raise ValueError("Expected scales (B, K), as `locate` returns them, but got None.")
            given[SCALES] = located.scale
        return self.parts.observe(**given)


class OnnxAttention(OnnxClassifier, AttentionModel):
    """An attention model run by ONNX Runtime: whole, or with other maps put in.

    Args:
        about: what the graph says of the model.
        parts: of the graph.
    """

    name = "onnx-attention"

    def __init__(self, about: About, parts: Parts):
        super().__init__(about, parts)
        self.local, self.weights = parts.like(LOCAL), parts.like(WEIGHTS)

    def attend(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return features and maps of images (B, C, H, W) in [0, 1]."""
        found = self.parts.run({IMAGES: images}, self.local + self.weights)
        return [found[name] for name in self.local], [found[name] for name in self.weights]

    def decide(self, local: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, classes) from features and maps as `attend` returns them."""
        given = dict(zip(self.local, local, strict=True)) | dict(
            zip(self.weights, maps, strict=True)
        )
        return self.parts.run(given, ["logits"])["logits"]


class OnnxRebuilder(ImageModel):
    """A model run by ONNX Runtime that names no classes and rebuilds images.

    Args:
        about: what the graph says of the model.
        parts: of the graph.
    """

    name = "onnx-rebuilder"
    looks = "patches"
    abilities = frozenset({Ability.KEYPOINTS, Ability.REBUILT})

    def __init__(self, about: About, parts: Parts):
        super().__init__(about.in_channels, about.inputs)
        self.about, self.parts = about, parts

    def forward(self, images: Tensor) -> Tensor:
        """Return rebuilt images (B, C, H, W) in [0, 1] for images (B, C, H, W) in [0, 1]."""
        self.check(images)
        return self.parts.run({IMAGES: self.normalised(images)}, ["rebuilt"])["rebuilt"]

    def observe(self, view: View) -> Explanation:
        """Locate in B images and rebuild them from the patches there."""
        return self.parts.observe(images=view.whole())
