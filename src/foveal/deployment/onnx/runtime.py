"""Image models run by ONNX Runtime, with explanations and the usual interface."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from foveal.deployment.onnx.about import About
from foveal.deployment.onnx.graph import IMAGES
from foveal.deployment.onnx.session import Graph
from foveal.deployment.onnx.split_points import KEYPOINTS, LOCAL, SCALES, WEIGHTS
from foveal.detectors import Located
from foveal.explanation import Explanation
from foveal.images import View
from foveal.models.abilities import Ability
from foveal.models.attention_maps import Attended
from foveal.models.image_model import ImageModel
from foveal.observation.tensors import COMPUTED


class Parts:
    """The named tensors of a graph: parts of an explanation, and split points.

    Args:
        graph: the graph to run.
        names: names of the tensors in the graph, by part.
        blocks: whether samples of patches are means, see `Explanation`.
    """

    def __init__(self, graph: Graph, names: Mapping[str, str], blocks: bool = False):
        self.graph, self.blocks = graph, blocks
        self.names = dict(names)
        self.shown = [name for name in COMPUTED if name in names]

    def like(self, stem: str) -> list[str]:
        """Return the names of the parts that begin with a stem and a dot, in order."""
        return [name for name in self.names if name.startswith(f"{stem}.")]

    def observe(self, **given: Tensor) -> Explanation:
        """Return the explanation that the graph computes from given parts, see `run`."""
        found: dict[str, Any] = self.run(given, self.shown)
        logits = found.pop("logits", None)
        if logits is None:  # not a classifier
            logits = next(iter(found.values())).new_zeros(len(given[IMAGES]), 0)
        return Explanation(given[IMAGES], logits, blocks=self.blocks, **found)

    def run(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """Return the parts `wanted`, computed from given ones; given ones are returned as is."""
        tensors = {self.names.get(name, name): value for name, value in given.items()}
        found = self.graph.run(tensors, [self.names[name] for name in wanted])
        return {name: found[self.names[name]] for name in wanted}


class OnnxModel(ImageModel):
    """A model run by ONNX Runtime, optionally with given keypoints or maps.

    Its graph includes the normalisation of the images.

    Args:
        about: metadata of the graph.
        parts: named tensors of the graph.
    """

    name = "onnx"

    def __init__(self, about: About, parts: Parts):
        super().__init__(about.in_channels, about.num_classes, about.inputs)
        self.about, self.parts = about, parts
        self.local, self.weights = parts.like(LOCAL), parts.like(WEIGHTS)
        classes = about.num_classes > 0
        able = {
            Ability.CLASSES: classes,
            Ability.KEYPOINTS: KEYPOINTS in parts.names,
            Ability.GIVEN_KEYPOINTS: classes and KEYPOINTS in parts.names,
            Ability.MAPS: bool(self.local),
            Ability.GIVEN_MAPS: bool(self.local),
            Ability.REBUILT: "rebuilt" in parts.names,
        }
        self.abilities = frozenset(ability for ability, has in able.items() if has)
        kinds = (name for name in ("patches", "maps") if name in parts.names)
        self.evidence_kind = next(kinds, self.evidence_kind)

    def observe(self, view: View) -> Explanation:
        """Return the explanation of B images, computed in one run of the graph."""
        return self.parts.observe(images=view.whole())

    def locate(self, view: View) -> Located:
        """Return the keypoints of B images, and their scales if the model has any."""
        wanted = [name for name in (KEYPOINTS, SCALES) if name in self.parts.names]
        found = self.parts.run({IMAGES: view.whole()}, wanted)
        return Located(found[KEYPOINTS], found.get(SCALES))

    def attend(self, view: View) -> Attended:
        """Return local features and attention maps of B images."""
        found = self.parts.run({IMAGES: view.whole()}, self.local + self.weights)
        return Attended(
            [found[name] for name in self.local], [found[name] for name in self.weights]
        )

    def decide(self, view: View, given: Any) -> Explanation:
        """Classify B images from given locations or maps.

        Raises:
            ValueError: the model's patches have scales, but none are given.
        """
        if Ability.GIVEN_MAPS in self.abilities:
            values = dict(zip(self.local, given.local, strict=True))
            values |= dict(zip(self.weights, given.maps, strict=True))
            logits = self.parts.run(values, ["logits"])["logits"]
            return Explanation(view.whole(), logits)
        values = {IMAGES: view.whole(), KEYPOINTS: given.xy}
        if SCALES in self.parts.names:
            if given.scale is None:
                raise ValueError("Expected scales (B, K), as `locate` returns them, but got None.")
            values[SCALES] = given.scale
        return self.parts.observe(**values)
