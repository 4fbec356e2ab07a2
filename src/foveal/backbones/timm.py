"""Any timm model with feature maps as a backbone."""

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from foveal.backbones.backbone import Backbone
from foveal.foundation.errors import UserError, missing_extra, one_line, unknown_name
from foveal.foundation.ranges import Channels


class TimmBackbone(Backbone):
    """The feature maps of a timm model; the global vector is the mean of its last map.

    Args:
        model: timm's name of the model, such as `resnet18` (`timm.list_models()`).
        in_channels: channels of the images.
        pretrained: start from timm's weights, which are downloaded. It is False in a trained
            model's settings, since the model has its own weights.

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
        except UserError:
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
        if local[-1].shape[1] != self.width:  # some models put the channels last
            local = [features.permute(0, 3, 1, 2) for features in local]
        return local, local[-1].mean(dim=(-2, -1))

    def settings(self) -> dict[str, object]:
        """Return the arguments that rebuild this backbone without a download."""
        return {"model": self.model, "in_channels": self.in_channels, "pretrained": False}


def backbone_weights(model: str, timeout: float = 5.0) -> Literal["pretrained", "scratch", "none"]:
    """Return which weights timm can provide for a model, after downloading pretrained ones.

    A single request without retries precedes the download: without a network it fails within
    seconds, whereas a download would give up after a minute.

    Args:
        model: timm's name of the model.
        timeout: seconds to wait for a response.

    Returns:
        `pretrained`; `scratch` if the weights are unavailable; `none` if timm is not installed.
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
    except Exception:  # any network error means that the weights are unavailable
        return "scratch"
    return "pretrained"
