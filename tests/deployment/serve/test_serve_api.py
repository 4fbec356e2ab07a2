"""The HTTP API: results, options, pages and headers, for every model family."""

import base64
import io
import json
import operator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from foveal import zoo
from foveal.cli import main
from foveal.deployment.serve.inference import Task, explain_batch
from foveal.deployment.serve.model_registry import Models
from foveal.deployment.serve.schemas import ExplainOptions
from foveal.explainers import EXPLAINERS, own_method, post_hoc_methods
from foveal.foundation.errors import UserError
from foveal.models import presets
from foveal.models.abilities import Ability
from studio_server import digits, encode_image, running_server

MODELS = ("mnist-focus", "mnist-focus-published", "mnist-attention", "mnist-cnn", "cifar10-focus")


@pytest.fixture(scope="module")
def server():
    with running_server(*MODELS) as address:
        yield address


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twenty digits as encoded images, and their class names."""
    pixels, names = digits(20)
    folder = tmp_path_factory.mktemp("digits")
    return [encode_image(image, folder) for image in pixels], names


def test_a_response_equals_the_output_of_the_command_line(server, pictures, tmp_path, capsys):
    path = tmp_path / "digit.png"
    path.write_bytes(pictures[0][0])
    run_main(["explain", "mnist-focus", str(path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    response = server.explain(pictures[0][0]).json
    printed["images"][0]["path"] = "digit.png"
    assert is_close(response, printed)
    assert list(response["images"][0]) == list(printed["images"][0])


def run_main(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert not stop.value.code


def is_close(actual, expected):
    """Compare JSON, with a tolerance for floats computed in a batch of another size."""
    if isinstance(expected, dict):
        return actual.keys() == expected.keys() and all(
            is_close(actual[key], expected[key]) for key in actual
        )
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(is_close, actual, expected))
    if isinstance(expected, float):
        return actual == pytest.approx(expected, abs=1e-5)
    return actual == expected


def test_base64_and_data_urls_in_json_give_the_same_result_as_a_file(server, pictures):
    data = base64.b64encode(pictures[0][1]).decode()
    by_file = server.explain(pictures[0][1]).json["images"][0]
    for image in (data, f"data:image/png;base64,{data}"):
        body = json.dumps({"model": "mnist-focus", "image": image, "top": 5}).encode()
        reply = server.request("POST", "/v1/explain", body, {"content-type": "application/json"})
        assert reply.status == 200
        result = reply.json["images"][0]
        assert {**result, "path": "digit.png"} == by_file


def test_several_files_are_explained_in_order(server, pictures):
    together = server.explain(*pictures[0][:10]).json["images"]
    separate = [server.explain(image).json["images"][0] for image in pictures[0][:10]]
    assert is_close(together, separate)
    predictions = [result["prediction"] for result in together]
    assert sum(map(operator.eq, predictions, pictures[1][:10])) >= 9


def test_results_of_concurrent_clients_are_not_mixed_up(server, pictures):
    expected = [server.explain(image).json for image in pictures[0]]

    def explain(index):
        return server.explain(pictures[0][index]).json

    order = list(range(20)) * 10
    with ThreadPoolExecutor(16) as pool:
        for index, result in zip(order, pool.map(explain, order), strict=True):
            assert is_close(result, expected[index])


def test_given_keypoints_are_used(server, pictures):
    points = [[0.0, 0.0], [-0.5, 0.5], [0.9, -0.9]]
    result = server.explain(pictures[0][0], keypoints=json.dumps(points)).json["images"][0]
    model = zoo.load("mnist-focus")
    pixels = torch.from_numpy(digits(20)[0][:1].copy())[:, None].float() / 255
    logits = model.classify_at(pixels, torch.tensor(points)[None])
    assert result["probabilities"][0]["probability"] == pytest.approx(
        float(logits.detach().softmax(1).max()), abs=1e-5
    )
    for point, used in zip(points, result["keypoints"], strict=True):
        assert abs(point[0] - used["x"]) <= 3 / 28  # patches are moved inside the image
        assert abs(point[1] - used["y"]) <= 3 / 28  # patches are moved inside the image


def test_explaining_at_the_models_own_keypoints_changes_nothing():
    model = zoo.load("mnist-focus-published")
    images = torch.rand(2, 1, 28, 28)
    original = model.explain(images)
    repeated = model.explain_at(images, original.keypoints, original.scales)
    assert torch.equal(repeated.logits, original.logits)
    assert torch.equal(repeated.patches, original.patches)
    zoom = presets.zoom().eval()
    scales = torch.full((2, 3), 2.0)
    assert torch.equal(zoom.explain_at(images, original.keypoints, scales).scales, scales)


def test_the_show_option_adds_pictures_maps_and_evidence(server, pictures):
    result = server.explain(pictures[0][0], show="pictures,evidence,maps").json["images"][0]
    assert len(result["pictures"]["patches"]) == 3
    assert result["pictures"]["image"].startswith("data:image/png;base64,")
    assert "maps" not in result  # a focus model has none
    for name in ("only", "without"):
        assert sum(p["probability"] for p in result["evidence"][name]["probabilities"]) <= 1.00001
    maps = server.explain(pictures[0][0], model="mnist-attention", show="maps").json["images"][0]
    assert np.array(maps["maps"]).shape[1:] == (28, 28)
    assert not maps["values"]["signed"]
    # The CNN decides from the whole image and so selects no evidence.
    cnn_result = server.explain(pictures[0][0], model="mnist-cnn", show="evidence").json["images"]
    assert cnn_result[0]["evidence"] is None


def test_the_evidence_only_result_is_that_of_an_image_greyed_out_elsewhere():
    entry = Models(["mnist-focus"])["mnist-focus"]
    image = digits(1)[0]
    options = ExplainOptions(model="mnist-focus", show=["evidence"])
    images = torch.from_numpy(image)[None].float() / 255
    evidence = entry.load().network.explain(images).evidence
    result = explain_batch([Task(entry, image, options)])[0]
    grey = torch.where(evidence, images, entry.network.mean)
    expected = entry.network.explain(grey).to_dicts()[0]["probabilities"]
    assert is_close(result["evidence"]["only"]["probabilities"], expected)


@pytest.mark.parametrize("name", ["mnist-focus", "mnist-attention"])
def test_onnx_runtime_gives_the_same_results_as_pytorch(name):
    image, results = digits(1)[0], []
    for runtime in ("torch", "onnx"):
        entry = Models([name], runtime)[name].load()
        options = ExplainOptions(model=name, show=["evidence"])
        results.append(explain_batch([Task(entry, image, options)])[0])
    torch_result, onnx_result = results
    assert is_close(torch_result["probabilities"], onnx_result["probabilities"])
    for part in ("only", "without"):
        torch_part, onnx_part = (result["evidence"][part]["probabilities"] for result in results)
        assert is_close(torch_part, onnx_part)


def test_an_unknown_runtime_is_a_user_error():
    with pytest.raises(UserError, match="Did you mean 'onnx'"):
        Models(["mnist-focus"], "onx")


@pytest.mark.parametrize("method", post_hoc_methods())
def test_post_hoc_methods_explain_the_image(server, pictures, method):
    reply = server.explain(pictures[0][0], model="mnist-cnn", method=method, show="maps,evidence")
    result = reply.json["images"][0]
    assert result["method"] == method
    assert np.array(result["maps"]).shape == (1, 28, 28)
    assert result["values"]["signed"]
    assert result["values"]["zero"] == (method != "rise")
    assert result["cost_forward_passes"] > 1
    assert result["evidence"]["fraction"] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("name", zoo.names())
def test_every_zoo_model_is_described_and_gives_all_outputs(name):
    entry = Models([name])[name]
    description = entry.describe()
    assert json.loads(json.dumps(description)) == description
    model = entry.load().network
    assert description["holds_keypoints"] == (Ability.GIVEN_KEYPOINTS in model.abilities)
    assert set(description["methods"]) <= set(EXPLAINERS)
    assert entry.abilities == model.abilities
    assert description["default_method"] == (own_method(model) or "grad-cam")
    size = model.inputs.usual_size or (300, 310)  # for a model of any size
    shape = (model.in_channels, *size)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    options = ExplainOptions(model=name, show=["pictures", "maps", "evidence"])
    result = explain_batch([Task(entry, image, options)])[0]
    assert json.loads(json.dumps(result))["pictures"]["image"]
    assert (description["evidence_kind"] == "patches") == ("keypoints" in result)
    assert (description["evidence_kind"] == "maps") == ("maps" in result)


def test_all_zoo_models_are_listed_with_the_digit_models_first():
    names = list(Models().by_name)
    assert names[:2] == ["mnist-focus", "mnist-attention"]
    assert sorted(names) == zoo.names()


def test_the_models_are_listed_with_their_cards(server):
    models = server.get("/v1/models").json["models"]
    assert [model["model"] for model in models] == list(MODELS)
    assert models[0]["figures"] == zoo.card("mnist-focus")["figures"]


@pytest.mark.parametrize(("side", "expected_side"), [(1500, 1500), (3000, 2048)])
def test_a_high_resolution_model_reads_a_large_image_up_to_the_limit(side, expected_side, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (side // 10, side // 10), dtype=np.uint8)
    data = encode_image(noise.repeat(10, 0).repeat(10, 1), tmp_path)
    with running_server("megapixel-mnist-focus") as large_image_server:
        response = large_image_server.explain(
            data, model="megapixel-mnist-focus", show="pictures"
        ).json
    result = response["images"][0]
    assert result["size_px"] == {"height": expected_side, "width": expected_side}
    assert len(result["keypoints"]) == len(result["pictures"]["patches"]) == 12


def test_the_fit_option_crops_or_stretches_a_photo(server, tmp_path):
    wide = np.zeros((40, 120, 3), dtype=np.uint8)
    wide[:, 40:80] = 255  # the middle square
    data = encode_image(wide, tmp_path)
    responses = {
        fit: server.explain(data, model="cifar10-focus", fit=fit, show="pictures").json
        for fit in ("crop", "stretch")
    }
    sources = {
        fit: response["images"][0]["pictures"]["image"] for fit, response in responses.items()
    }
    assert sources["crop"] != sources["stretch"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources["crop"].split(",")[1]))))
    assert pixels.shape == (32, 32, 3)
    assert pixels.min() > 200  # except at the edge, where the filter mixes in dark pixels


def test_the_pages_and_the_schema_load_nothing_from_other_hosts(server):
    spec = server.get("/openapi.json").json
    fields = spec["paths"]["/v1/explain"]["post"]["requestBody"]["content"]
    assert set(fields) == {"multipart/form-data", "application/json"}
    for path in ("/", "/docs", "/static/main.js", "/static/panel.js", "/static/studio.css"):
        reply = server.get(path)
        assert reply.status == 200
        text = reply.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
    assert server.get("/healthz").json == {"status": "ok"}
    assert len(server.get("/v1/samples").json["samples"]) == 20


def test_head_gives_the_headers_of_get_without_a_body(server):
    for path in ("/", "/healthz", "/v1/models", "/static/main.js", "/nowhere", "/v1/explain"):
        reply, head_reply = server.get(path), server.request("HEAD", path)
        assert head_reply.body == b""
        assert head_reply.status == reply.status
        assert head_reply.headers.keys() == reply.headers.keys()
        assert head_reply.headers["content-length"] == str(len(reply.body))


def test_every_response_has_security_headers(server):
    for path in ("/", "/v1/models", "/nowhere"):
        headers = server.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_contributions_are_offered_only_by_models_that_support_them():
    entries = Models(["imagenet", "cifar10-vgg", "mnist-attention", "mnist-focus"]).by_name
    offered = [name for name, entry in entries.items() if "contributions" in entry.methods]
    assert offered == ["imagenet", "mnist-attention"]
    sides = [entry.describe()["short_side_px"] for entry in entries.values()]
    assert sides == [224, None, None, None]
