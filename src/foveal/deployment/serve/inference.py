"""Inference for requests: explanations of images by a model, as values for JSON."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveal.deployment.serve.model_registry import ServedModel
from foveal.deployment.serve.pictures import data_url, pictures
from foveal.deployment.serve.refusal import Refused
from foveal.deployment.serve.schemas import ExplainOptions
from foveal.explainers import OWN, explainer
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.images.values import as_floats

Result = dict[str, Any]  # explanation of one image, as values for JSON


@dataclass(frozen=True)
class Task:
    """One image to explain, with the model and the options of the request.

    Attributes:
        model: the model.
        image: (C, H, W), uint8.
        options: options of the request.
    """

    model: ServedModel
    image: np.ndarray
    options: ExplainOptions

    @property
    def is_batchable(self) -> bool:
        """Whether any number of such tasks can share one forward pass."""
        return not self.options.show and self.options.keypoints is None and not self.is_slow

    @property
    def is_slow(self) -> bool:
        """Whether a post-hoc method is requested."""
        return self.options.method != OWN

    @property
    def images(self) -> Tensor:
        """The image as a batch (1, C, H, W), floats in [0, 1]."""
        return _batch([self])


def explain_batch(tasks: list[Task]) -> list[Result | Refused]:
    """Return the result or the refusal of each task, in order.

    A result is what `foveal explain --json` prints for an image, with the additional parts that the
    request asks for.

    Args:
        tasks: batchable tasks for one model and image shape, or a single task of any kind.
    """
    model = tasks[0].model.load()
    if tasks[0].is_batchable:
        try:
            max_top = max(task.options.top for task in tasks)
            dicts = model.explain(_batch(tasks)).to_dicts(max_top)
        except (UserError, ValueError) as error:
            return [Refused(422, str(error)) for _ in tasks]
        return [_keep_top(item, task.options.top) for item, task in zip(dicts, tasks, strict=True)]
    return [_explain_one(task) for task in tasks]


def _explain_one(task: Task) -> Result | Refused:
    """Return the result of one task, or its refusal."""
    try:
        explanation = _explanation(task)
        result: Result
        (result,) = explanation.to_dicts(task.options.top)  # of one image
        if "pictures" in task.options.show:
            result["pictures"] = pictures(explanation)
        if "maps" in task.options.show and explanation.maps is not None:
            result["maps"] = explanation.maps[0].tolist()
            result["values"] = asdict(explanation.values)
        if "evidence" in task.options.show:
            result["evidence"] = _evidence(task, explanation)
    except Refused as refused:
        return refused
    except (UserError, ValueError) as error:
        return Refused(422, " ".join(str(error).split()))
    return result


def _batch(tasks: list[Task]) -> Tensor:
    """Return the images of tasks (B, C, H, W), floats in [0, 1].

    This must be called in an inference thread, because it would block the event loop.
    """
    return as_floats(torch.from_numpy(np.stack([task.image for task in tasks])))


def _keep_top(result: Result, top: int) -> Result:
    """Truncate the probabilities of a result to the first `top`, in place, and return it."""
    if "probabilities" in result:
        result["probabilities"] = result["probabilities"][:top]
    return result


def _explanation(task: Task) -> Explanation:
    """Return the explanation of a task's image by the requested method.

    Raises:
        Refused: the model does not support the method or the keypoints.
    """
    model, options = task.model, task.options
    if options.method not in model.methods:
        supported = ", ".join(model.methods)
        raise Refused(
            422, f"Expected a method of {model.name} ({supported}), but got {options.method[:40]}."
        )
    if options.keypoints is not None:
        return _explain_at_keypoints(task)
    if task.is_slow:
        return explainer(options.method)(model.slow_network, task.images)
    return model.explain(task.images)


def _explain_at_keypoints(task: Task) -> Explanation:
    """Return the explanation of an image whose patches are at the keypoints of the request.

    Without scales in the request, the patches keep the scales that the model itself selects.

    Raises:
        Refused: the model does not support this, or expects other numbers of keypoints or scales.
    """
    model, options = task.model, task.options
    if not model.holds_keypoints or task.is_slow:
        raise Refused(422, "Keypoints can only be given for a focus model's own explanation.")
    network = model.network
    keypoints = torch.tensor(options.keypoints)[None]
    with torch.inference_mode():
        explanation = network.explain(task.images)
        assert explanation.keypoints is not None
        count = explanation.keypoints.shape[1]
        if keypoints.shape[1] != count:
            raise Refused(422, f"Expected {count} keypoints, but got {keypoints.shape[1]}.")
        scales = explanation.scales
        if options.scales is not None:
            scales = torch.tensor(options.scales)[None]
            if scales.shape[1] != count:
                raise Refused(422, f"Expected {count} scales, but got {scales.shape[1]}.")
        return network.explain_at(task.images, keypoints, scales)


def _evidence(task: Task, explanation: Explanation) -> Result | None:
    """Return the model's predictions when it sees only the evidence, and only the other pixels.

    Hidden pixels are grey, the mean of the training images. Returns None if the explanation has
    neither maps nor keypoints, because then no pixels are marked as evidence.
    """
    if explanation.maps is None and explanation.keypoints is None:
        return None
    evidence = explanation.top_evidence(task.options.fraction)[:, None]  # (1, 1, H, W)
    grey = task.model.grey
    masked = {
        "only": torch.where(evidence, explanation.images, grey),
        "without": torch.where(evidence, grey, explanation.images),
    }
    predictions = {name: _predict_masked(task, images) for name, images in masked.items()}
    return {"fraction": float(evidence.float().mean()), **predictions}


def _predict_masked(task: Task, images: Tensor) -> Result:
    """Return the predictions of a task's model, and of its judge if any, for a masked image."""
    (result,) = task.model.explain(images).to_dicts(task.options.top)  # of one image
    keys = ("prediction", "probabilities", "rebuilding_mse")
    prediction: Result = {key: result[key] for key in keys if key in result}
    judge = task.model.judge
    if judge is not None and "prediction" in prediction:
        (judge_result,) = judge.load().explain(images).to_dicts(top=1)
        (predicted_class,) = judge_result["probabilities"]  # its name and its probability
        prediction["judge"] = {"model": judge.name, **predicted_class}
    if "pictures" in task.options.show:
        prediction["picture"] = data_url(images[0])
    return prediction
