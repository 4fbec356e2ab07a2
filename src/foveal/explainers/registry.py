"""All explainers by name: the model itself, its contributions, and post-hoc methods."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from foveal.explainers.controls import CONTROLS
from foveal.explainers.grad_cam import GRAD_CAM
from foveal.explainers.gradients import GRADIENT_X_INPUT, INTEGRATED_GRADIENTS
from foveal.explainers.interface import Explainer
from foveal.explainers.layer_cam import LAYER_CAM
from foveal.explainers.occlusion import OCCLUSION
from foveal.explainers.own import OWN, Contributions, Own
from foveal.explainers.post_hoc import PostHoc
from foveal.explainers.rise import RISE
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.registry import Registry
from foveal.models.abilities import Ability
from foveal.models.contributions import CONTRIBUTIONS
from foveal.models.image_model import ImageModel
from foveal.models.images import Images
from foveal.observation.logits import Targets

EXPLAINERS: Registry[Explainer] = Registry(
    "foveal.explainers",
    {
        one.name: one
        for one in (
            Own(),
            Contributions(),
            GRAD_CAM,
            LAYER_CAM,
            INTEGRATED_GRADIENTS,
            OCCLUSION,
            GRADIENT_X_INPUT,
            RISE,
        )
    },
)


def explainer(name: str) -> Explainer:
    """Return an explainer by its name in `EXPLAINERS` or `CONTROLS`.

    Raises:
        UserError: there is none of that name.

    Example:
        >>> import torch
        >>> from foveal.models import SmallCNN
        >>> explainer("grad-cam")(SmallCNN(), torch.rand(2, 1, 28, 28)).method
        'grad-cam'
    """
    found = EXPLAINERS.get(name) or CONTROLS.get(name)
    if found is None:
        raise unknown_name("method", name, EXPLAINERS)
    return found


def post_hoc_methods() -> tuple[str, ...]:
    """Return the names of the explainers that are not the model's own."""
    return tuple(name for name in EXPLAINERS if name not in (OWN, CONTRIBUTIONS))


def own_method(model: ImageModel) -> str | None:
    """Return the method by which a model explains itself at the cost of its answer, or None.

    That is `model` where it has keypoints or maps to show. A model that looks everywhere has none;
    where its logits are sums over locations, as `imagenet`'s are, it is `contributions`.
    """
    if model.looks != "everywhere":
        return OWN
    return CONTRIBUTIONS if EXPLAINERS[CONTRIBUTIONS].supports(model) else None


def methods_of(model: ImageModel) -> tuple[str, ...]:
    """Return the methods worth comparing for a model: its own first, then post-hoc methods.

    A model that decides from patches needs no other; beside attention maps stand the contributions,
    where the model has them, and Grad-CAM.
    """
    if Ability.KEYPOINTS in model.abilities:
        return (OWN,)
    if Ability.MAPS in model.abilities:
        compared = (OWN, CONTRIBUTIONS, GRAD_CAM.name)
        return tuple(name for name in compared if EXPLAINERS[name].supports(model))
    own = own_method(model)
    return post_hoc_methods() if own is None else (own, *post_hoc_methods())


def attribute(
    model: nn.Module,
    images: Images,
    method: str,
    *,
    targets: Targets | None = None,
    batch_size: int = 64,
    classes: Sequence[str] = (),
    layer: str | None = None,
    reshape: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> Explanation:
    """Return how much each pixel speaks for a class, by a method that asks after the decision.

    The model stays as it was: its mode, its device, its gradients; so do the caller's random
    numbers, and the same call gives the same maps.

    Args:
        model: any classifier that maps images in [0, 1] to logits, of Foveal or not: (B, classes)
            for a softmax, or (B, 1) for the sigmoid of class 1 against class 0.
        images: (B, C, H, W), B of any size, floats in [0, 1]: a tensor, a NumPy array, or a list
            of either (C, H, W).
        method: a name of `post_hoc_methods()`.
        targets: (B,) numbers of the classes asked about; the model's answers if not given.
        batch_size: images in one forward pass, also where a method makes hundreds of one image;
            bounds the memory. Of large images fewer, 2^20 pixels in all.
        classes: a name for each class; those that the model knows if not given. One alone is
            class 1 of a single logit.
        layer: for grad-cam and layer-cam, the name of a module to read features from; one is found
            if not given. Its output may be (B, channels, h, w), (B, h, w, channels) or
            (B, tokens, channels), a grid of tokens behind a class token; of a tuple the first.
        reshape: makes (B, channels, h, w) of that output, and of its gradient, where its shape
            does not show which axis is which.
        seed: of the masks of rise.

    Returns:
        An explanation with the logits of a plain forward pass, signed raw maps (B, 1, H, W) and
        the measured cost.

    Raises:
        ValueError: the images are not of the model's shape or type.
        UserError: no such method, target or layer; the model does not return logits, or has none
            of the layers that the method needs; or its logits or the maps are not finite.

    Example:
        >>> import torch
        >>> from foveal.models import SmallCNN
        >>> explanation = attribute(SmallCNN(), torch.rand(2, 1, 28, 28), "gradient-x-input")
        >>> tuple(explanation.maps.shape), explanation.cost
        ((2, 1, 28, 28), 3.0)
    """
    found = EXPLAINERS.get(method)
    if not isinstance(found, PostHoc):
        raise unknown_name("attribution method", method, post_hoc_methods())
    if layer is not None and not found.reads_layer:
        raise UserError(f"Only {' and '.join(_layered())} read a layer; {method} takes none.")
    if reshape is not None and layer is None:
        raise UserError("Expected a layer with reshape, the name of the module that it is for.")
    return found(
        model,
        images,
        targets,
        batch_size=batch_size,
        classes=classes,
        layer=layer,
        reshape=reshape,
        seed=seed,
    )


def _layered() -> list[str]:
    """Return the names of the methods that read the features of a layer."""
    known = EXPLAINERS.values()
    return [one.name for one in known if isinstance(one, PostHoc) and one.reads_layer]
