"""Texts, schemas and examples of the API's description in the OpenAPI format."""

from typing import Any

from foveal.deployment.serve.schemas import ExplainJson, ExplainOptions

API = (
    "Predictions of image classifiers with their explanations. Keypoints are (x, y) in [-1, 1], "
    "x to the right and y down; names ending in `_px` are in pixels. Refused requests get a 4xx "
    "status and a `detail` of one sentence; 429 means that the server is busy."
)

_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_EXAMPLE = {
    "model": "mnist-focus",
    "images": [
        {
            "path": "digit.png",
            "prediction": "3",
            "probabilities": [{"class": "3", "probability": 0.998}],
            "size_px": {"height": 28, "width": 28},
            "evidence_fraction": 0.093,
            "method": "model",
            "cost_forward_passes": 1.0,
            "patch_size_px": 5,
            "keypoints": [
                {
                    "x": -0.107,
                    "y": 0.036,
                    "x_px": 12.0,
                    "y_px": 14.0,
                    "left_px": 10,
                    "top_px": 12,
                    "scale": 1.0,
                }
            ],
        }
    ],
}
_REFUSALS = {
    400: "The request is malformed.",
    401: "Credentials are missing or wrong.",
    404: "The model does not exist.",
    408: "The body did not arrive in time.",
    413: "Too many bytes or images.",
    415: "The body is neither multipart/form-data nor application/json.",
    422: "The image or a value is invalid.",
    429: "The server is busy: try again later.",
}


def _form_schema() -> dict[str, object]:
    """Return the schema of a request as a form, in which files replace the images as text."""
    schema = ExplainOptions.model_json_schema()
    text = {"type": "string"}
    properties = {
        **schema["properties"],
        "image": {**_FILES, "description": "One or several image files."},
        "show": {**text, "description": schema["properties"]["show"]["description"]},
        "keypoints": {**text, "description": "See application/json; written as JSON."},
        "scales": {**text, "description": "See application/json; written as JSON."},
    }
    return {"type": "object", "properties": properties, "required": ["model", "image"]}


EXPLAIN: dict[str, Any] = {
    "description": "The response is that of `foveal explain --json`; `path` is the file's name.",
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": _form_schema()},
                "application/json": {"schema": ExplainJson.model_json_schema()},
            },
        }
    },
    "responses": {
        200: {"content": {"application/json": {"example": _EXAMPLE}}},
        **{status: {"description": text} for status, text in _REFUSALS.items()},
    },
}
