"""The HTTP API: its answers are those of the command line, for every family of models."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from foveal import zoo
from foveal.cli import main
from foveal.deployment.serve.inference import Task, answer
from foveal.deployment.serve.model_registry import Models
from foveal.deployment.serve.schemas import ExplainOptions
from foveal.explainers import EXPLAINERS, own_method, post_hoc_methods
from foveal.foundation.errors import UserError
from foveal.models import presets
from foveal.models.abilities import Ability
from studio_server import digits, encoded, running

MODELS = ("mnist-focus", "mnist-focus-published", "mnist-attention", "mnist-cnn", "cifar10-focus")


@pytest.fixture(scope="module")
def server():
    with running(*MODELS) as address:
        yield address


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    pixels, names = digits(20)
    folder = tmp_path_factory.mktemp("digits")
    return [encoded(one, folder) for one in pixels], names


def test_an_answer_is_what_the_command_line_prints(server, pictures, tmp_path, capsys):
    path = tmp_path / "digit.png"
    path.write_bytes(pictures[0][0])
    main_exit(["explain", "mnist-focus", str(path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    told = server.explain(pictures[0][0]).json
    printed["images"][0]["path"] = "digit.png"
    assert close(told, printed)
    assert list(told["images"][0]) == list(printed["images"][0])


def main_exit(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert not stop.value.code


def close(told, expected):
    """Compare JSON, floats up to what a batch of another size rounds."""
    if isinstance(expected, dict):
        return told.keys() == expected.keys() and all(close(told[k], expected[k]) for k in told)
    if isinstance(expected, list):
        return len(told) == len(expected) and all(map(close, told, expected))
    if isinstance(expected, float):
        return told == pytest.approx(expected, abs=1e-5)
    return told == expected


def test_base64_and_data_urls_in_json_get_the_same_answer_as_a_file(server, pictures):
    data = base64.b64encode(pictures[0][1]).decode()
    by_file = server.explain(pictures[0][1]).json["images"][0]
    for image in (data, f"data:image/png;base64,{data}"):
        body = json.dumps({"model": "mnist-focus", "image": image, "top": 5}).encode()
        reply = server.ask("POST", "/v1/explain", body, {"content-type": "application/json"})
        assert reply.status == 200
        told = reply.json["images"][0]
        assert {**told, "path": "digit.png"} == by_file


def test_several_files_are_answered_in_their_order(server, pictures):
    told = server.explain(*pictures[0][:10]).json["images"]
    alone = [server.explain(one).json["images"][0] for one in pictures[0][:10]]
    assert close(told, alone)
    assert (
        sum(one["prediction"] == name for one, name in zip(told, pictures[1][:10], strict=True))
        >= 9
    )


def test_answers_of_many_clients_at_a_time_are_not_mixed_up(server, pictures):
    alone = [server.explain(one).json for one in pictures[0]]

    def ask(index):
        return server.explain(pictures[0][index]).json

    order = list(range(20)) * 10
    with ThreadPoolExecutor(16) as pool:
        for index, told in zip(order, pool.map(ask, order), strict=True):
            assert close(told, alone[index])


def test_keypoints_are_held_where_they_are_put(server, pictures):
    places = [[0.0, 0.0], [-0.5, 0.5], [0.9, -0.9]]
    told = server.explain(pictures[0][0], keypoints=json.dumps(places)).json["images"][0]
    model = zoo.load("mnist-focus")
    pixels = torch.from_numpy(digits(20)[0][:1].copy())[:, None].float() / 255
    logits = model.classify_at(pixels, torch.tensor(places)[None])
    assert told["probabilities"][0]["probability"] == pytest.approx(
        float(logits.detach().softmax(1).max()), abs=1e-5
    )
    for place, found in zip(places, told["keypoints"], strict=True):
        assert abs(place[0] - found["x"]) <= 3 / 28  # as far as a patch must move to lie inside
        assert abs(place[1] - found["y"]) <= 3 / 28  # as far as a patch must move to lie inside


def test_an_explanation_at_the_places_that_it_finds_is_its_own():
    model = zoo.load("mnist-focus-published")
    images = torch.rand(2, 1, 28, 28)
    own = model.explain(images)
    held = model.explain_at(images, own.keypoints, own.scales)
    assert torch.equal(held.logits, own.logits)
    assert torch.equal(held.patches, own.patches)
    zoom = presets.zoom().eval()
    scales = torch.full((2, 3), 2.0)
    assert torch.equal(zoom.explain_at(images, own.keypoints, scales).scales, scales)


def test_more_is_told_where_more_is_asked(server, pictures):
    told = server.explain(pictures[0][0], show="pictures,evidence,maps").json["images"][0]
    assert len(told["pictures"]["patches"]) == 3
    assert told["pictures"]["image"].startswith("data:image/png;base64,")
    assert "maps" not in told  # a focus model has none
    for name in ("only", "without"):
        assert sum(p["probability"] for p in told["evidence"][name]["probabilities"]) <= 1.00001
    maps = server.explain(pictures[0][0], model="mnist-attention", show="maps").json["images"][0]
    assert np.array(maps["maps"]).shape[1:] == (28, 28)
    assert not maps["values"]["signed"]
    whole = server.explain(pictures[0][0], model="mnist-cnn", show="evidence").json["images"][0]
    assert whole["evidence"] is None


def test_evidence_alone_is_the_picture_with_all_else_grey():
    served = Models(["mnist-focus"])["mnist-focus"]
    image = digits(1)[0]
    asked = ExplainOptions(model="mnist-focus", show=["evidence"])
    images = torch.from_numpy(image)[None].float() / 255
    seen = served.ready().network.explain(images).evidence
    told = answer([Task(served, image, asked)])[0]
    grey = torch.where(seen, images, served.network.mean)
    expected = served.network.explain(grey).to_dicts()[0]["probabilities"]
    assert close(told["evidence"]["only"]["probabilities"], expected)


@pytest.mark.parametrize("name", ["mnist-focus", "mnist-attention"])
def test_onnx_runtime_answers_as_pytorch_does(name):
    image, told = digits(1)[0], []
    for runtime in ("torch", "onnx"):
        served = Models([name], runtime)[name].ready()
        asked = ExplainOptions(model=name, show=["evidence"])
        told.append(answer([Task(served, image, asked)])[0])
    for one, other in ((t["probabilities"], o["probabilities"]) for t, o in (told,)):
        assert close(one, other)
    for part in ("only", "without"):
        one, other = (answered["evidence"][part]["probabilities"] for answered in told)
        assert close(one, other)


def test_an_unknown_runtime_is_a_user_error():
    with pytest.raises(UserError, match="Did you mean 'onnx'"):
        Models(["mnist-focus"], "onx")


@pytest.mark.parametrize("method", post_hoc_methods())
def test_rivals_are_asked_on_the_same_image(server, pictures, method):
    reply = server.explain(pictures[0][0], model="mnist-cnn", method=method, show="maps,evidence")
    told = reply.json["images"][0]
    assert told["method"] == method
    assert np.array(told["maps"]).shape == (1, 28, 28)
    assert told["values"]["signed"]
    assert told["values"]["zero"] == (method != "rise")
    assert told["cost_forward_passes"] > 1
    assert told["evidence"]["fraction"] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("name", zoo.names())
def test_every_model_of_the_zoo_is_described_and_answers_in_full(name):
    served = Models([name])[name]
    described = served.describe()
    assert json.loads(json.dumps(described)) == described
    model = served.ready().network
    assert described["holds_keypoints"] == (Ability.GIVEN_KEYPOINTS in model.abilities)
    assert set(described["methods"]) <= set(EXPLAINERS)
    assert served.abilities == model.abilities
    assert described["default_method"] == (own_method(model) or "grad-cam")
    shape = (
        model.in_channels,
        *(model.inputs.usual_size or (300, 310)),
    )  # of any size, if it has none
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    asked = ExplainOptions(model=name, show=["pictures", "maps", "evidence"])
    told = answer([Task(served, image, asked)])[0]
    assert json.loads(json.dumps(told))["pictures"]["image"]
    assert (described["evidence_kind"] == "patches") == ("keypoints" in told)
    assert (described["evidence_kind"] == "maps") == ("maps" in told)


def test_the_whole_zoo_is_listed_with_a_focus_model_of_digits_first():
    names = list(Models().by_name)
    assert names[:2] == ["mnist-focus", "mnist-attention"]
    assert sorted(names) == zoo.names()


def test_the_models_are_listed_with_their_cards(server):
    told = server.get("/v1/models").json["models"]
    assert [one["model"] for one in told] == list(MODELS)
    assert told[0]["figures"] == zoo.card("mnist-focus")["figures"]


@pytest.mark.parametrize(("side", "kept"), [(1500, 1500), (3000, 2048)])
def test_a_large_image_is_answered_at_its_size_by_a_model_that_reads_it_in_part(
    side, kept, tmp_path
):
    noise = np.random.default_rng(0).integers(0, 256, (side // 10, side // 10), dtype=np.uint8)
    data = encoded(noise.repeat(10, 0).repeat(10, 1), tmp_path)
    with running("megapixel-mnist-focus") as large:
        told = large.explain(data, model="megapixel-mnist-focus", show="pictures").json
    one = told["images"][0]
    assert one["size_px"] == {"height": kept, "width": kept}
    assert len(one["keypoints"]) == len(one["pictures"]["patches"]) == 12


def test_a_photo_is_squeezed_or_cropped_as_asked(server, tmp_path):
    wide = np.zeros((40, 120, 3), dtype=np.uint8)
    wide[:, 40:80] = 255  # the middle square
    data = encoded(wide, tmp_path)
    told = {
        fit: server.explain(data, model="cifar10-focus", fit=fit, show="pictures").json
        for fit in ("crop", "stretch")
    }
    shown = {fit: one["images"][0]["pictures"]["image"] for fit, one in told.items()}
    assert shown["crop"] != shown["stretch"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["crop"].split(",")[1]))))
    assert pixels.shape == (32, 32, 3)
    assert pixels.min() > 200  # but for what the filter sees beside the square


def test_the_api_describes_itself_without_anything_from_elsewhere(server):
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


def test_head_is_answered_as_get_is_without_a_body(server):
    for path in ("/", "/healthz", "/v1/models", "/static/main.js", "/nowhere", "/v1/explain"):
        got, head = server.get(path), server.ask("HEAD", path)
        assert head.body == b""
        assert (head.status, head.headers.keys()) == (got.status, got.headers.keys())
        assert head.headers["content-length"] == str(len(got.body))


def test_every_answer_keeps_the_browser_from_harm(server):
    for path in ("/", "/v1/models", "/nowhere"):
        headers = server.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_contributions_are_offered_where_a_model_can_give_them():
    served = Models(["imagenet", "cifar10-vgg", "mnist-attention", "mnist-focus"]).by_name
    offered = [name for name, one in served.items() if "contributions" in one.methods]
    assert offered == ["imagenet", "mnist-attention"]
    sides = [one.describe()["short_side_px"] for one in served.values()]
    assert sides == [224, None, None, None]
