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

Answer = dict[str, Any]


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
        return _floats([self])


def answer(tasks: list[Task]) -> list[Answer | Refused]:
    """Return the results of a batch of plain tasks of one model, or of a single task.

    Each is what `foveal explain --json` prints for an image, with the further parts requested.
    """
    served = tasks[0].served.ready()
    if tasks[0].plain:
        try:
            found = served.explain(_floats(tasks)).to_dicts(max(task.options.top for task in tasks))
        except (UserError, ValueError) as error:
            return [Refused(422, str(error)) for _ in tasks]
        return [_first(one, task.options.top) for one, task in zip(found, tasks, strict=True)]
    return [_answer_one(task) for task in tasks]


def _answer_one(task: Task) -> Answer | Refused:
    try:
        explanation = _explanation(task)
        found: Answer = explanation.to_dicts(task.options.top)[0]
        if "pictures" in task.options.show:
            found["pictures"] = pictures(explanation)
        if "maps" in task.options.show and explanation.maps is not None:
            found["maps"] = explanation.maps[0].tolist()
            found["values"] = asdict(explanation.values)
        if "evidence" in task.options.show:
            found["evidence"] = _evidence(task, explanation)
    except Refused as refused:
        return refused
    except (UserError, ValueError) as error:
        return Refused(422, " ".join(str(error).split()))
    return found


def _floats(tasks: list[Task]) -> Tensor:
    # Called in the inference thread: the event loop would wait at each operation.
    return as_floats(torch.from_numpy(np.stack([task.image for task in tasks])))


def _first(found: Answer, top: int) -> Answer:
    if "probabilities" in found:
        found["probabilities"] = found["probabilities"][:top]
    return found


def _explanation(task: Task) -> Explanation:
    served, options = task.served, task.options
    if options.method not in served.methods:
        known = ", ".join(served.methods)
        raise Refused(
            422, f"Expected a method of {served.name} ({known}), but got {options.method[:40]}."
        )
    if options.keypoints is not None:
        return _held(task)
    if task.slow:
        return explainer(options.method)(served.slow_network, task.images)
    return served.explain(task.images)


def _held(task: Task) -> Explanation:
    served, options = task.served, task.options
    if not served.holds_keypoints or task.slow:
        raise Refused(422, "Keypoints can only be given for a focus model's own explanation.")
    network = served.network
    keypoints = torch.tensor(options.keypoints)[None]
    with torch.inference_mode():
        found = network.explain(task.images)
        assert found.keypoints is not None
        expected = found.keypoints.shape[1]
        if keypoints.shape[1] != expected:
            raise Refused(422, f"Expected {expected} keypoints, but got {keypoints.shape[1]}.")
        scales = found.scales
        if options.scales is not None:
            scales = torch.tensor(options.scales)[None]
            if scales.shape[1] != expected:
                raise Refused(422, f"Expected {expected} scales, but got {scales.shape[1]}.")
        return network.explain_at(task.images, keypoints, scales)


def _evidence(task: Task, explanation: Explanation) -> Answer | None:
    """Return the predictions from the evidence alone and from everything but the evidence.

    The rest is grey, the mean of the training images. None if the explanation has neither maps nor
    keypoints, because then it has no particular evidence.
    """
    if explanation.maps is None and explanation.keypoints is None:
        return None
    evidence = explanation.top_evidence(task.options.fraction)[:, None]  # (1, 1, H, W)
    grey = task.served.grey
    masked = {
        "only": torch.where(evidence, explanation.images, grey),
        "without": torch.where(evidence, grey, explanation.images),
    }
    answers = {name: _answer_to(task, images) for name, images in masked.items()}
    return {"fraction": float(evidence.float().mean()), **answers}


def _answer_to(task: Task, images: Tensor) -> Answer:
    found = task.served.explain(images).to_dicts(task.options.top)[0]
    kept = ("prediction", "probabilities", "rebuilding_mse")
    answer: Answer = {key: found[key] for key in kept if key in found}
    judge = task.served.judge
    if judge is not None and "prediction" in answer:
        judged = judge.ready().explain(images).to_dicts(1)[0]
        answer["judge"] = {"model": judge.name, **judged["probabilities"][0]}
    if "pictures" in task.options.show:
        answer["picture"] = data_url(images[0])
    return answer
