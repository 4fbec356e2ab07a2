"""Registry of the models that clients may use, which are loaded on first use."""

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from foveal import zoo
from foveal.deployment import onnx
from foveal.deployment.serve.refusal import Refused
from foveal.explainers import EXPLAINERS, OWN
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError, split_name, unknown_name
from foveal.foundation.escaping import printable
from foveal.models import MODELS, ImageModel, Inputs, model_type
from foveal.models.abilities import Ability


class ServedModel:
    """A model that clients may use.

    Args:
        name: the name that clients use.
        source: name, run folder or Hub id as for `zoo.load`; it never comes from a client.
        runtime: `torch` or `onnx`.

    Raises:
        UserError: there is no such model or runtime, or an explainer of another package cannot be
            imported.
    """

    def __init__(self, name: str, source: str, runtime: str = "torch"):
        if runtime not in onnx.RUNTIMES:
            raise unknown_name("runtime", runtime, onnx.RUNTIMES)
        self.name = name
        self.source = source
        self.runtime = runtime
        self.folder = zoo.folder(source)
        self.card = zoo.card(source)
        settings = zoo.settings(source)
        type_name, _ = split_name("model", MODELS, settings)
        self.kind = model_type(type_name)
        self.inputs = Inputs.from_settings(settings.get("inputs", {}))
        self.abilities = self.kind.abilities_with(settings)
        # Supported explanation methods, the model's own first.
        self.methods = [name for name, kind in EXPLAINERS.items() if kind.needs <= self.abilities]
        # Name of the dataset that the model was trained on, or None if its card does not state it.
        self.trained_on: str | None = self.card.get("trained_on")
        # A classifier trained independently, to tell how much evidence a region contains.
        self.judge: ServedModel | None = None
        self.is_ready = False
        self._loading = threading.Lock()

    @cached_property
    def network(self) -> ImageModel:
        """The model, in evaluation mode.

        The first access loads it; for ONNX Runtime it is also exported, which takes seconds.
        """
        return onnx.load(self.source, self.runtime)

    @cached_property
    def slow_network(self) -> ImageModel:
        """A copy for post-hoc methods, run by PyTorch.

        The hooks of post-hoc methods must not affect inference in other threads. The copy is used
        only by the thread of the slow queue.
        """
        return zoo.load(self.source)

    def explain(self, images: Tensor) -> Explanation:
        """Return the model's own explanation of images (B, C, H, W), floats in [0, 1]."""
        with torch.inference_mode():
            return self.network.explain(images)

    @property
    def grey(self) -> Tensor:
        """The mean of the training images in [0, 1], (1, C, 1, 1); 0 if it is unknown."""
        return torch.tensor(self.inputs.mean or (0.0,)).reshape(1, -1, 1, 1)

    def load(self) -> "ServedModel":
        """Load the model unless it is loaded, and return self. This is thread-safe."""
        with self._loading:
            _ = self.network
        self.is_ready = True
        return self

    @property
    def default_method(self) -> str:
        """The model's own method, or a post-hoc one if the model's evidence is the whole image."""
        if self.kind.evidence_kind == "image":
            return next((name for name in self.methods if name != OWN), OWN)
        return OWN

    @property
    def holds_keypoints(self) -> bool:
        """Whether the model can classify patches at given keypoints."""
        return Ability.GIVEN_KEYPOINTS in self.abilities

    def describe(self) -> dict[str, object]:
        """Return the description for clients, as JSON values."""
        size = self.inputs.size
        return {
            "model": self.name,
            "kind": self.kind.name,
            "about": self.card.get("recipe", {}).get("about", ""),
            "trained_on": self.trained_on,
            "size_px": None if size is None else {"height": size[0], "width": size[1]},
            "short_side_px": self.inputs.short_side,
            "classes": list(self.inputs.classes),
            "evidence_kind": self.kind.evidence_kind,
            "holds_keypoints": self.holds_keypoints,
            "methods": self.methods,
            "default_method": self.default_method,
            "figures": self.card.get("figures", {}),
        }


# Models at the top of the page, if the server offers all models of the zoo.
TOP_MODELS = ("mnist-focus", "mnist-attention")


class Models:
    """The models that clients may use, by name and in the order of the page.

    Args:
        sources: names, run folders or Hub ids as for `zoo.load`; the first is the page's default.
            By default, all models of the zoo.
        runtime: `torch` or `onnx`.

    Raises:
        UserError: there is no such model or runtime, or two models have the same name.
    """

    def __init__(self, sources: Sequence[str] = (), runtime: str = "torch"):
        self.by_name: dict[str, ServedModel] = {}
        other_names = (name for name in zoo.names() if name not in TOP_MODELS)
        for source in sources or [*TOP_MODELS, *other_names]:
            name = Path(source).resolve().name if Path(source).is_dir() else source
            if source in zoo.names():
                name = source
            name = printable(name)  # forms and JSON do not change a printable name
            if name in self.by_name:
                raise UserError(f"Two models are named {name!r}: rename a folder.")
            self.by_name[name] = ServedModel(name, source, runtime)
        for model in self.by_name.values():
            judge = zoo.judge_of(model.trained_on) if model.trained_on else None
            if judge not in (None, model.name):
                model.judge = self.by_name.get(judge)

    def __getitem__(self, name: str) -> ServedModel:
        """Return the model of the name that a client sent.

        Raises:
            Refused: no model has that name.
        """
        if name not in self.by_name:
            raise Refused(404, str(unknown_name("model", name[:100], self.by_name)))
        return self.by_name[name]
