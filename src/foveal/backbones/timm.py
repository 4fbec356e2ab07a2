"""A backbone that wraps any timm model with feature maps."""

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from foveal.backbones.backbone import Backbone
from foveal.foundation.errors import UserError, missing_extra, one_line, unknown_name
from foveal.foundation.ranges import Channels


class TimmBackbone(Backbone):
    """The feature maps of a timm model; the global vector is the mean of its last map.

    Args:
        model: timm's name of the model, such as `resnet18`; `timm.list_models()` lists all names.
        in_channels: channels of the images.
        pretrained: whether to start from timm's weights, which are downloaded if necessary.
            `settings` always returns False, because a saved model contains its own weights.

    Raises:
        UserError: timm is not installed, has no such model, or cannot return its feature maps or
            weights.
    """

    averages = True

    def __init__(
        self, model: str = "resnet18", in_channels: Channels = 3, pretrained: bool = False
    ):
        super().__init__()
        try:
            import timm
        except ImportError:
            raise missing_extra("timm", "timm") from None
        if not timm.is_model(model):
            raise unknown_name("timm model", model, timm.list_models())
        try:
            features: Any = timm.create_model(
                model, features_only=True, in_chans=in_channels, pretrained=pretrained
            )
        except UserError:  # raised while the model is built, for example by `parameter_limit`
            raise
        except Exception as error:  # timm raises exceptions of many types
            message = f"timm cannot return feature maps of {model!r}: {one_line(error)}"
            raise UserError(message) from error
        self.features: Callable[[Tensor], list[Tensor]] = features
        self.model = model
        self.in_channels = in_channels
        self.widths = list(features.feature_info.channels())
        self.width = self.widths[-1]
        self.strides = [None] * len(self.widths)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the model's feature maps and the mean (B, width) of the last."""
        local = list(self.features(images))
        if local[-1].shape[1] != self.width:  # some models return features (B, h, w, C)
            local = [features.permute(0, 3, 1, 2) for features in local]
        return local, local[-1].mean(dim=(-2, -1))

    def settings(self) -> dict[str, object]:
        """Return the arguments that rebuild this backbone without a download."""
        return {"model": self.model, "in_channels": self.in_channels, "pretrained": False}


def backbone_weights(model: str, timeout: float = 5.0) -> Literal["pretrained", "scratch", "none"]:
    """Download a model's pretrained weights if possible, and return which weights are available.

    The Hub is contacted once, without retries, before the download: without a network this fails
    within seconds, whereas the download itself would retry for a minute.

    Args:
        model: timm's name of the model.
        timeout: seconds to wait for the Hub's response before the download.

    Returns:
        `pretrained` if the weights are now in the local cache, `scratch` (random weights) if they
        are unavailable, or `none` if timm is not installed.
    """
    try:
        import timm
    except ImportError:
        return "none"
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    config = timm.get_pretrained_cfg(model)
    if config is None or not config.hf_hub_id:
        return "scratch"
    file = "model.safetensors"
    if isinstance(try_to_load_from_cache(config.hf_hub_id, file), str):
        return "pretrained"
    try:
        HfApi().model_info(config.hf_hub_id, timeout=timeout)
        hf_hub_download(config.hf_hub_id, file)
    except Exception:  # after any error, usually of the network, they are unavailable
        return "scratch"
    return "pretrained"
