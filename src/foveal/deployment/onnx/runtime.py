"""Models that are run by ONNX Runtime, with the interface and explanations of other models."""

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


class NamedGraph:
    """A graph whose tensors are the parts of an explanation and the split points.

    Args:
        graph: the graph to run.
        names: names of the tensors in the graph, by part or split point.
        blocks: whether each sample of a patch is the mean of a square of pixels.
    """

    def __init__(self, graph: Graph, names: Mapping[str, str], blocks: bool = False):
        self.graph, self.blocks = graph, blocks
        self.names = dict(names)
        self.explanation_parts = [name for name in COMPUTED if name in names]

    def numbered(self, stem: str) -> list[str]:
        """Return the names of the split points `STEM.0`, `STEM.1`, ..., in order."""
        return [name for name in self.names if name.startswith(f"{stem}.")]

    def observe(self, **inputs: Tensor) -> Explanation:
        """Return the explanation that the graph computes from the images and any other inputs."""
        parts: dict[str, Any] = self.run(inputs, self.explanation_parts)
        logits = parts.pop("logits", None)
        if logits is None:  # not a classifier
            logits = next(iter(parts.values())).new_zeros(len(inputs[IMAGES]), 0)
        return Explanation(inputs[IMAGES], logits, blocks=self.blocks, **parts)

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> dict[str, Tensor]:
        """Return parts of the explanation or split points, computed from others.

        Args:
            inputs: the images, parts or split points to compute from, by name.
            outputs: names of those to return; one of the inputs is returned unchanged.
        """
        tensors = {self.names.get(name, name): value for name, value in inputs.items()}
        results = self.graph.run(tensors, [self.names[name] for name in outputs])
        return {name: results[self.names[name]] for name in outputs}


class OnnxModel(ImageModel):
    """A model that is run by ONNX Runtime, and can also classify from given keypoints or maps.

    The graph includes the normalisation of the images.

    Args:
        about: metadata of the graph.
        parts: the graph, whose tensors have the names in the metadata.
    """

    name = "onnx"

    def __init__(self, about: About, parts: NamedGraph):
        super().__init__(about.in_channels, about.num_classes, about.inputs)
        self.about = about
        self.parts = parts
        self.local_names = parts.numbered(LOCAL)
        self.weight_names = parts.numbered(WEIGHTS)
        is_classifier = about.num_classes > 0
        support = {
            Ability.CLASSES: is_classifier,
            Ability.KEYPOINTS: KEYPOINTS in parts.names,
            Ability.GIVEN_KEYPOINTS: is_classifier and KEYPOINTS in parts.names,
            Ability.MAPS: bool(self.local_names),
            Ability.GIVEN_MAPS: bool(self.local_names),
            Ability.REBUILT: "rebuilt" in parts.names,
        }
        self.abilities = frozenset(ability for ability, supported in support.items() if supported)
        kinds = (name for name in ("patches", "maps") if name in parts.names)
        self.evidence_kind = next(kinds, self.evidence_kind)

    def observe(self, view: View) -> Explanation:
        """Return the explanation of B images, which one run of the graph computes."""
        return self.parts.observe(images=view.whole())

    def locate(self, view: View) -> Located:
        """Return the keypoints of B images, and their scales if the model has any."""
        names = [name for name in (KEYPOINTS, SCALES) if name in self.parts.names]
        parts = self.parts.run({IMAGES: view.whole()}, names)
        return Located(parts[KEYPOINTS], parts.get(SCALES))

    def attend(self, view: View) -> Attended:
        """Return local features and attention maps of B images."""
        parts = self.parts.run({IMAGES: view.whole()}, self.local_names + self.weight_names)
        return Attended(
            [parts[name] for name in self.local_names], [parts[name] for name in self.weight_names]
        )

    def decide(self, view: View, given: Any) -> Explanation:
        """Classify B images from given locations or maps.

        Args:
            view: the images.
            given: what `locate` or `attend` returns, possibly changed.

        Raises:
            ValueError: the model's patches have scales, but none are given.
        """
        if Ability.GIVEN_MAPS in self.abilities:
            values = dict(zip(self.local_names, given.local, strict=True))
            values |= dict(zip(self.weight_names, given.maps, strict=True))
            logits = self.parts.run(values, ["logits"])["logits"]
            return Explanation(view.whole(), logits)
        values = {IMAGES: view.whole(), KEYPOINTS: given.xy}
        if SCALES in self.parts.names:
            if given.scale is None:
                raise ValueError("Expected scales (B, K), as `locate` returns them, but got None.")
            values[SCALES] = given.scale
        return self.parts.observe(**values)
