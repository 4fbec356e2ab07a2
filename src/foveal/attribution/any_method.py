"""One door to every explanation: the model's own, or a post-hoc method's."""

from foveal.attribution.controls import CONTROLS, control
from foveal.attribution.methods import METHODS
from foveal.attribution.post_hoc import attribute
from foveal.errors import UserError, unknown_name
from foveal.explanation import Explanation
from foveal.logits import Targets
from foveal.models.abilities import Ability
from foveal.models.contributions import CONTRIBUTIONS, Additive
from foveal.models.image_model import ImageModel
from foveal.models.images import Images

OWN = "model"  # the method of an explanation that is the model's own


def explainers() -> tuple[str, ...]:
    """Return the names of all explainers: the model itself, its contributions, post-hoc methods."""
    return (OWN, CONTRIBUTIONS, *METHODS)


def own_method(model: ImageModel) -> str | None:
    """Return the method by which a model explains itself at the cost of its answer, or None.

    That is `model` where it has keypoints or maps to show. A model that looks everywhere has none;
    where its logits are sums over locations, as `imagenet`'s are, it is `contributions`.
    """
    if model.looks != "everywhere":
        return OWN
    return CONTRIBUTIONS if _is_additive(model) else None


def methods_of(model: ImageModel) -> tuple[str, ...]:
    """Return the methods worth comparing for a model: its own first, then post-hoc methods.

    A model that decides from patches needs no other; beside attention maps stand the contributions,
    where the model has them, and Grad-CAM.
    """
    if Ability.KEYPOINTS in model.abilities:
        return (OWN,)
    if Ability.MAPS in model.abilities:
        return (OWN, *((CONTRIBUTIONS,) if _is_additive(model) else ()), "grad-cam")
    own = own_method(model)
    return (*METHODS,) if own is None else (own, *METHODS)


def _is_additive(model: ImageModel) -> bool:
    return isinstance(model, Additive) and model.is_additive()


def explain_by(
    model: ImageModel, images: Images, method: str = OWN, targets: Targets | None = None
) -> Explanation:
    """Return the explanation of images by a method of any kind.

    Args:
        model: of Foveal.
        images: (B, C, H, W), floats in [0, 1], as `ImageModel.explain` takes them.
        method: `model` for its own (see `own_method`), `contributions` where it can give them, or
            a name of `METHODS` or `CONTROLS`.
        targets: (B,) indices of the classes explained, by all but keypoints and attention; the
            predictions if not given.

    Raises:
        UserError: no such method, or not for this model.
        ValueError: the images are not of the model's shape or type.
    """
    if method == OWN:
        method = own_method(model) or OWN
    if method == OWN:
        return model.explain(images)
    if method == CONTRIBUTIONS:
        if not isinstance(model, Additive):
            raise UserError(
                f"{CONTRIBUTIONS} are for models whose logits are sums over locations ('attention' "
                f"and 'plain'); this model is of another kind, {model.name!r}."
            )
        return model.contributions(images, targets)
    if method in CONTROLS:
        return control(model, images, method)
    if method not in METHODS:
        raise unknown_name("method", method, explainers())
    return attribute(model, images, method, targets=targets)
