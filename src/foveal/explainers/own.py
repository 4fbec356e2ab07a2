"""The model as its own explainer: keypoints or attention maps, and exact contributions.

Contributions are the terms that the locations of an image add to a logit.
"""

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
    """Explains a logit by the contribution of each location of the image.

    It supports only models whose logits are sums over locations.
    """

    name = CONTRIBUTIONS
    needs = frozenset({Ability.CONTRIBUTIONS})

    def __call__(
        self, model: ImageModel, images: Images, targets: Targets | None = None
    ) -> Explanation:
        """Return the contributions to the targets' logits; the arguments are as in `Explainer`."""
        if not self.needs <= type(model).abilities | model.abilities:
            raise UserError(
                f"{CONTRIBUTIONS} require a model whose logits are sums over locations "
                f"('attention', 'plain', 'crops'), but got {model.name!r}."
            )
        return cast(Additive, model).contributions(images, targets)


class ModelExplainer(Explainer):
    """Explains a prediction by the keypoints or maps that it was computed from.

    A model without keypoints or maps is explained by its contributions if it has them.
    """

    name = OWN

    def __call__(
        self, model: ImageModel, images: Images, targets: Targets | None = None
    ) -> Explanation:
        """Return the result of `model.explain`, or the contributions of a model without evidence.

        The arguments are as in `Explainer`. The targets matter only for contributions.
        """
        contributions = Contributions()
        if model.evidence_kind == "image" and contributions.supports(model):
            return contributions(model, images, targets)
        return model.explain(images)
