"""The model as its own explainer: keypoints or attention maps, and exact contributions."""

from typing import cast

from foveal.explainers.interface import Explainer
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.models.abilities import Ability
from foveal.models.contributions import CONTRIBUTIONS, Additive
from foveal.models.image_model import ImageModel
from foveal.models.images import Images
from foveal.observation.logits import Targets

OWN = "model"  # `method` of a model's own explanation


class Contributions(Explainer):
    """Contribution of each location to a logit, for models whose logits are sums over them."""

    name = CONTRIBUTIONS
    needs = frozenset({Ability.CONTRIBUTIONS})

    def __call__(
        self, model: ImageModel, images: Images, targets: Targets | None = None
    ) -> Explanation:
        """Return the terms of the targets' logits: see `Explainer`."""
        if not self.needs <= type(model).abilities | model.abilities:
            raise UserError(
                f"{CONTRIBUTIONS} require a model whose logits are sums over locations "
                f"('attention', 'plain', 'crops'), but got {model.name!r}."
            )
        return cast(Additive, model).contributions(images, targets)


class ModelExplainer(Explainer):
    """The model's own explanation, from which its prediction was computed.

    A model without keypoints or maps is explained by its contributions if it has them.
    """

    name = OWN

    def __call__(
        self, model: ImageModel, images: Images, targets: Targets | None = None
    ) -> Explanation:
        """Return the result of `model.explain`, or the contributions: see `Explainer`."""
        contributions = Contributions()
        if model.evidence_kind == "image" and contributions.supports(model):
            return contributions(model, images, targets)
        return model.explain(images)
