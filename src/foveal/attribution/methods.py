"""The post-hoc methods by name."""

from collections.abc import Callable

from foveal.attribution.grad_cam import grad_cam
from foveal.attribution.gradients import gradient_x_input, integrated_gradients
from foveal.attribution.layer_cam import layer_cam
from foveal.attribution.occlusion import occlusion
from foveal.attribution.rise import rise
from foveal.attribution.task import Attributor, Task
from foveal.registry import Registry

METHODS: Registry[Callable[[Task], Attributor]] = Registry(
    "foveal.explainers",
    {
        "grad-cam": grad_cam,
        "layer-cam": layer_cam,
        "integrated-gradients": integrated_gradients,
        "occlusion": occlusion,
        "gradient-x-input": gradient_x_input,
        "rise": rise,
    },
)
LAYERED = ("grad-cam", "layer-cam")  # read the features of a layer
