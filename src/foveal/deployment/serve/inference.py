"""Inference for requests: explanations of images by one model, as JSON."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveal.deployment.serve.model_registry import Served
from foveal.deployment.serve.pictures import data_url, pictures
from foveal.deployment.serve.refusal import Refused
from foveal.deployment.serve.schemas import ExplainOptions
from foveal.explainers import OWN, explainer
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.images.values import as_floats

Result = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One image to explain, with the model and the options of the request.

    Attributes:
        served: the model.
        image: (C, H, W), uint8.
        options: options of the request.
    """

    served: Served
    image: np.ndarray
    options: ExplainOptions

    @property
    def plain(self) -> bool:
        """Whether any number of such tasks can share one forward pass."""
        return not self.options.show and self.options.keypoints is None and not self.slow

    @property
    def slow(self) -> bool:
        """Whether a post-hoc method is requested."""
        return self.options.method != OWN

    @property
    def images(self) -> Tensor:
        """The image as a batch (1, C, H, W), floats in [0, 1]."""
        return _batch([self])


def explain_batch(tasks: list[Task]) -> list[Result | Refused]:
    """Return the results of a batch of plain tasks of one model, or of a single task.

    Each result is what `foveal explain --json` prints for an image, plus the requested parts.
    """
    served = tasks[0].served.ready()
    if tasks[0].plain:
        try:
            dicts = served.explain(_batch(tasks)).to_dicts(max(task.options.top for task in tasks))
        except (UserError, ValueError) as error:
            return [Refused(422, str(error)) for _ in tasks]
        return [_keep_top(item, task.options.top) for item, task in zip(dicts, tasks, strict=True)]
    return [_explain_one(task) for task in tasks]


def _explain_one(task: Task) -> Result | Refused:
    try:
        explanation = _explanation(task)
        result: Result = explanation.to_dicts(task.options.top)[0]
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
    # Called in the inference thread, as each operation would block the event loop.
    return as_floats(torch.from_numpy(np.stack([task.image for task in tasks])))


def _keep_top(result: Result, top: int) -> Result:
    if "probabilities" in result:
        result["probabilities"] = result["probabilities"][:top]
    return result


def _explanation(task: Task) -> Explanation:
    served, options = task.served, task.options
    if options.method not in served.methods:
        supported = ", ".join(served.methods)
        raise Refused(
            422, f"Expected a method of {served.name} ({supported}), but got {options.method[:40]}."
        )
    if options.keypoints is not None:
        return _explain_at_keypoints(task)
    if task.slow:
        return explainer(options.method)(served.slow_network, task.images)
    return served.explain(task.images)


def _explain_at_keypoints(task: Task) -> Explanation:
    served, options = task.served, task.options
    if not served.holds_keypoints or task.slow:
        raise Refused(422, "Keypoints can only be given for a focus model's own explanation.")
    network = served.network
    keypoints = torch.tensor(options.keypoints)[None]
    with torch.inference_mode():
        explanation = network.explain(task.images)
        assert explanation.keypoints is not None
        expected = explanation.keypoints.shape[1]
        if keypoints.shape[1] != expected:
            raise Refused(422, f"Expected {expected} keypoints, but got {keypoints.shape[1]}.")
        scales = explanation.scales
        if options.scales is not None:
            scales = torch.tensor(options.scales)[None]
            if scales.shape[1] != expected:
                raise Refused(422, f"Expected {expected} scales, but got {scales.shape[1]}.")
        return network.explain_at(task.images, keypoints, scales)


def _evidence(task: Task, explanation: Explanation) -> Result | None:
    """Return the predictions from only the evidence and from everything but the evidence.

    Hidden pixels are grey, the mean of the training images. Returns None if the explanation has
    neither maps nor keypoints, as it then singles out no pixels as evidence.
    """
    if explanation.maps is None and explanation.keypoints is None:
        return None
    evidence = explanation.top_evidence(task.options.fraction)[:, None]  # (1, 1, H, W)
    grey = task.served.grey
    masked = {
        "only": torch.where(evidence, explanation.images, grey),
        "without": torch.where(evidence, grey, explanation.images),
    }
    predictions = {name: _predict_masked(task, images) for name, images in masked.items()}
    return {"fraction": float(evidence.float().mean()), **predictions}


def _predict_masked(task: Task, images: Tensor) -> Result:
    result = task.served.explain(images).to_dicts(task.options.top)[0]
    keys = ("prediction", "probabilities", "rebuilding_mse")
    prediction: Result = {key: result[key] for key in keys if key in result}
    judge = task.served.judge
    if judge is not None and "prediction" in prediction:
        judge_result = judge.ready().explain(images).to_dicts(1)[0]
        prediction["judge"] = {"model": judge.name, **judge_result["probabilities"][0]}
    if "pictures" in task.options.show:
        prediction["picture"] = data_url(images[0])
    return prediction
