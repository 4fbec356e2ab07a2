"""Registry of explainers: the model's own explanation, its contributions, and post-hoc methods.

Example:
    >>> import torch
    >>> from foveal.models import SmallCNN
    >>> explanation = attribute(SmallCNN(), torch.rand(2, 1, 28, 28), "gradient-x-input")
    >>> tuple(explanation.maps.shape), explanation.cost
    ((2, 1, 28, 28), 3.0)
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from foveal.explainers.controls import CONTROLS
from foveal.explainers.grad_cam import GRAD_CAM
from foveal.explainers.gradients import GRADIENT_X_INPUT, INTEGRATED_GRADIENTS
from foveal.explainers.interface import Explainer
from foveal.explainers.layer_cam import LAYER_CAM
from foveal.explainers.occlusion import OCCLUSION
from foveal.explainers.own import OWN, Contributions, ModelExplainer
from foveal.explainers.post_hoc import Options, PostHoc
from foveal.explainers.rise import RISE
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.registry import Registry, by_name
from foveal.models.abilities import Ability
from foveal.models.contributions import CONTRIBUTIONS
from foveal.models.image_model import ImageModel
from foveal.models.images import Images
from foveal.observation.logits import Targets

EXPLAINERS: Registry[Explainer] = Registry(
    "foveal.explainers",
    by_name(
        ModelExplainer(),
        Contributions(),
        GRAD_CAM,
        LAYER_CAM,
        INTEGRATED_GRADIENTS,
        OCCLUSION,
        GRADIENT_X_INPUT,
        RISE,
    ),
)


def explainer(name: str) -> Explainer:
    """Return an explainer by its name in `EXPLAINERS` or `CONTROLS`.

    Raises:
        UserError: no explainer has that name.

    Example:
        >>> import torch
        >>> from foveal.models import SmallCNN
        >>> explainer("grad-cam")(SmallCNN(), torch.rand(2, 1, 28, 28)).method
        'grad-cam'
    """
    match = EXPLAINERS.get(name) or CONTROLS.get(name)
    if match is None:
        raise unknown_name("method", name, EXPLAINERS)
    return match


def post_hoc_methods() -> tuple[str, ...]:
    """Return the names of the explainers that are not the model's own."""
    return tuple(name for name in EXPLAINERS if name not in (OWN, CONTRIBUTIONS))


def own_method(model: ImageModel) -> str | None:
    """Return the method by which a model explains itself at the cost of a prediction, or None.

    The method is `model` for a model with keypoints or maps. It is `contributions` for a model that
    reads the whole image but whose logits are sums over locations, such as `imagenet`. Other models
    cannot explain themselves.
    """
    if model.evidence_kind != "image":
        return OWN
    return CONTRIBUTIONS if EXPLAINERS[CONTRIBUTIONS].supports(model) else None


def methods_of(model: ImageModel) -> tuple[str, ...]:
    """Return the methods to compare for a model: its own first, then post-hoc methods.

    A model that decides from patches needs no method besides its own. A model with attention maps
    is also explained by Grad-CAM, and by its contributions if it has them. All other models are
    explained by all post-hoc methods.
    """
    if Ability.KEYPOINTS in model.abilities:
        return (OWN,)
    if Ability.MAPS in model.abilities:
        candidates = (OWN, CONTRIBUTIONS, GRAD_CAM.name)
        return tuple(name for name in candidates if EXPLAINERS[name].supports(model))
    method = own_method(model)
    return post_hoc_methods() if method is None else (method, *post_hoc_methods())


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
    """Return the attribution of a class to each pixel, by a post-hoc method.

    The model's mode, device and gradients and the random generators are left unchanged, and the
    same call returns the same maps.

    Args:
        model: any classifier from images in [0, 1] to logits (B, classes) for a softmax, or (B, 1)
            for the sigmoid of class 1 against class 0.
        images: (B, C, H, W), floats in [0, 1], or a list of (C, H, W); tensors or NumPy arrays.
        method: a name of `post_hoc_methods()`.
        targets: (B,) indices of the classes to explain; None for the predicted classes.
        batch_size: images per forward pass, including the variants that a method makes of an
            image. It bounds the memory, and is reduced if a pass would exceed 2^20 pixels.
        classes: name of each class, or of class 1 for a single logit; empty for the model's names.
        layer: name of the module that grad-cam and layer-cam read features from; None for an
            automatic choice. The output of the module, or the first entry if it is a tuple, is
            (B, channels, h, w), (B, h, w, channels) or (B, tokens, channels) with a grid of tokens,
            possibly after a class token.
        reshape: function from this output, or its gradient, to features (B, channels, h, w);
            needed only if the layout is ambiguous.
        seed: seed of the masks of rise.

    Returns:
        The explanation with the logits of a forward pass, raw maps (B, 1, H, W), which are signed
        for some methods, and the measured cost.

    Raises:
        ValueError: the images do not have the model's shape or type.
        UserError: the method, a target or the layer does not exist; the model does not return
            logits or has no suitable layer; or the logits or the maps are not finite.
    """
    explain = _post_hoc(method, layer, reshape)
    return explain(model, images, targets, Options(batch_size, classes, layer, reshape, seed))


def _post_hoc(method: str, layer: str | None, reshape: object) -> PostHoc:
    """Return a post-hoc method by its name, after checking the arguments that depend on it."""
    explain = EXPLAINERS.get(method)
    if not isinstance(explain, PostHoc):
        raise unknown_name("attribution method", method, post_hoc_methods())
    if layer is not None and not explain.reads_layer:
        raise UserError(
            f"Only {' and '.join(_layer_methods())} take a layer, but got one for {method}."
        )
    if reshape is not None and layer is None:
        raise UserError("Expected the layer that reshape applies to, but got only reshape.")
    return explain


def _layer_methods() -> list[str]:
    """Return the names of the methods that read the features of a layer."""
    methods = [method for method in EXPLAINERS.values() if isinstance(method, PostHoc)]
    return [method.name for method in methods if method.reads_layer]
