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


class NamedGraph:
    """The named tensors of a graph: parts of an explanation, and split points.

    Args:
        graph: the graph to run.
        names: the name of each part's tensor in the graph, by part.
        blocks: whether samples of patches are means, see `Explanation`.
    """

    def __init__(self, graph: Graph, names: Mapping[str, str], blocks: bool = False):
        self.graph, self.blocks = graph, blocks
        self.names = dict(names)
        self.explanation_parts = [name for name in COMPUTED if name in names]

    def numbered(self, stem: str) -> list[str]:
        """Return the names of the parts that begin with a stem and a dot, in order."""
        return [name for name in self.names if name.startswith(f"{stem}.")]

    def observe(self, **inputs: Tensor) -> Explanation:
        """Return the explanation that the graph computes from `inputs`, see `run`."""
        parts: dict[str, Any] = self.run(inputs, self.explanation_parts)
        logits = parts.pop("logits", None)
        if logits is None:  # not a classifier
            logits = next(iter(parts.values())).new_zeros(len(inputs[IMAGES]), 0)
        return Explanation(inputs[IMAGES], logits, blocks=self.blocks, **parts)

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> dict[str, Tensor]:
        """Return the parts `outputs`, computed from `inputs`; an input may be an output too."""
        tensors = {self.names.get(name, name): value for name, value in inputs.items()}
        results = self.graph.run(tensors, [self.names[name] for name in outputs])
        return {name: results[self.names[name]] for name in outputs}


class OnnxModel(ImageModel):
    """A model run by ONNX Runtime, optionally with given keypoints or maps.

    Its graph includes the normalisation of the images.

    Args:
        about: metadata of the graph.
        parts: named tensors of the graph.
    """

    name = "onnx"

    def __init__(self, about: About, parts: NamedGraph):
        super().__init__(about.in_channels, about.num_classes, about.inputs)
        self.about, self.parts = about, parts
        self.local_names, self.weight_names = parts.numbered(LOCAL), parts.numbered(WEIGHTS)
        classes = about.num_classes > 0
        supported = {
            Ability.CLASSES: classes,
            Ability.KEYPOINTS: KEYPOINTS in parts.names,
            Ability.GIVEN_KEYPOINTS: classes and KEYPOINTS in parts.names,
            Ability.MAPS: bool(self.local_names),
            Ability.GIVEN_MAPS: bool(self.local_names),
            Ability.REBUILT: "rebuilt" in parts.names,
        }
        self.abilities = frozenset(ability for ability, value in supported.items() if value)
        kinds = (name for name in ("patches", "maps") if name in parts.names)
        self.evidence_kind = next(kinds, self.evidence_kind)

    def observe(self, view: View) -> Explanation:
        """Return the explanation of B images, computed in one run of the graph."""
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
