"""Explanations: indexing, accepted images and targets, and errors."""

import json

import numpy as np
import pytest
import torch

import foveal
from foveal.backbones import VGGBackbone
from foveal.datasets import read_image
from foveal.detectors import Harris
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.models import AttentionNet, SmallCNN, presets


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return presets.focus(Harris(keypoints=2), patch_size=5, width=16).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 1, 20, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def explanation(model, images):
    return model.explain(images)


def indices_of(selection: Explanation, explanation: Explanation) -> list[int]:
    """Return the index in `explanation` of each image of `selection`, compared by their pixels."""
    for field in ("logits", "keypoints", "patches"):
        assert len(getattr(selection, field)) == len(selection.images) == len(selection)
    matches = (selection.images[:, None] == explanation.images[None]).flatten(2).all(dim=2)
    return matches.int().argmax(dim=1).tolist()


@pytest.mark.parametrize("index", [0, 3, 4, -1, -5])
@pytest.mark.parametrize(
    "convert",
    [int, np.int64, np.uint8, np.int8, torch.tensor, np.array],
    ids=lambda convert: convert.__name__,
)
def test_integer_of_any_type_selects_one_image(explanation, index, convert):
    if index < 0 and convert is np.uint8:
        index = 2  # an unsigned integer cannot be negative
    assert indices_of(explanation[convert(index)], explanation) == [range(5)[index]]


@pytest.mark.parametrize("index", [5, 10, -6, -100, 2**70])
def test_integer_out_of_range_is_an_index_error(explanation, index):
    with pytest.raises(IndexError, match=r"from -5 to 4"):
        explanation[index]
    with pytest.raises(IndexError):
        explanation.figure(index)
    if index < 2**63:
        for indices in ([0, index], np.array([index]), torch.tensor([1, index])):
            with pytest.raises(IndexError, match=r"from -5 to 4"):
                explanation[indices]


@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(1, 3),
        slice(-2, None),
        slice(None, None, 2),
        slice(None, None, -1),
        slice(3, 0, -2),
        slice(2, 100),
        slice(7, 9),
        slice(3, 1),
    ],
    ids=str,
)
def test_slices_behave_as_for_a_list(explanation, index):
    assert indices_of(explanation[index], explanation) == list(range(5))[index]


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor])
@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ([2, 0, 2], [2, 0, 2]),
        ([-1, 1], [4, 1]),
        ([3], [3]),
        ([], []),
        ([True, False, False, True, True], [0, 3, 4]),
        ([False] * 5, []),
    ],
    ids=str,
)
def test_lists_arrays_and_masks_select_images(explanation, convert, index, expected):
    assert indices_of(explanation[convert(index)], explanation) == expected


def test_mask_requires_one_boolean_per_image(explanation):
    is_same_class = explanation.predictions == explanation.predictions[0]
    assert indices_of(explanation[is_same_class], explanation)[0] == 0
    for mask in ([True], [True] * 6, torch.ones(5, 1, dtype=torch.bool)):
        with pytest.raises(IndexError, match=r"Expected a mask \(5,\)"):
            explanation[mask]
    assert indices_of(explanation[:1][torch.tensor([True])], explanation) == [0]
    assert len(explanation[:1][torch.tensor([False])]) == 0


@pytest.mark.parametrize(
    "index", ["0", 1.0, None, (0, 1), torch.tensor([0.5]), torch.zeros(1, 1).long(), {0}, ["a"]]
)
def test_invalid_index_is_a_type_error(explanation, index):
    with pytest.raises(TypeError, match="Expected an integer, a slice, a list of integers or a m"):
        explanation[index]


def test_explanation_has_a_length_and_can_be_iterated_in_both_directions(explanation):
    assert len(explanation) == 5
    assert [indices_of(single, explanation) for single in explanation] == [[0], [1], [2], [3], [4]]
    assert [len(single) for single in reversed(explanation)] == [1] * 5


def test_empty_explanation_gives_no_pictures_and_no_dicts(explanation, tmp_path):
    empty = explanation[5:]
    assert (len(empty), list(empty), empty.to_dicts(), empty.save(tmp_path)) == (0, [], [], [])


@pytest.mark.parametrize(
    "convert",
    [
        lambda images: images.numpy(),
        lambda images: images.double().numpy(),
        lambda images: images.double(),
        lambda images: list(images),
        lambda images: tuple(image.numpy() for image in images),
        lambda images: images.numpy()[:, :, ::-1].copy()[:, :, ::-1],  # negative strides
        lambda images: images.numpy().astype(">f4"),
        lambda images: np.asfortranarray(images.numpy()),
    ],
    ids=["array", "float64-array", "float64", "list", "tuple", "flipped", "big-endian", "fortran"],
)
def test_arrays_tensors_and_lists_are_accepted_as_images(model, images, convert):
    expected = model.explain(images)
    result = model.explain(convert(images))
    torch.testing.assert_close(result.logits, expected.logits)
    torch.testing.assert_close(result.images, expected.images, check_dtype=False)
    for method in ("gradient-x-input", "occlusion"):
        attribution = foveal.attribute(SmallCNN(), images, method, seed=0)
        assert attribution.maps.shape == (5, 1, 20, 24)
    cnn = SmallCNN().eval()
    expected = foveal.attribute(cnn, images, "gradient-x-input")
    result = foveal.attribute(cnn, convert(images), "gradient-x-input")
    torch.testing.assert_close(result.maps, expected.maps)


def test_read_only_array_is_accepted_without_a_warning(model, images, recwarn):
    array = images.numpy().copy()
    array.flags.writeable = False
    torch.testing.assert_close(model.explain(array).logits, model.explain(images).logits)
    assert recwarn.list == []


@pytest.mark.parametrize(
    ("make_invalid", "message"),
    [
        (lambda images: "digit.png", r"tensor or NumPy array \(B, C, H, W\).*builtins\.str"),
        (lambda images: None, "but got builtins.NoneType"),
        (lambda images: ["a.png"], "but got builtins.str"),
        (lambda images: images.numpy().astype(object), "but got NumPy's object"),
        (lambda images: [], "at least 1 image, but got none"),
        (lambda images: [images[0], images[0, :, :9]], r"of one size.*\(1, 9, 24\), \(1, 20, 24\)"),
        (
            lambda images: (images.numpy() * 255).astype(np.uint8),
            "Divide uint8 images by 255: images / 2",
        ),
        (lambda images: images.numpy()[0], r"but got \(1, 20, 24\)"),
        (lambda images: images.permute(0, 2, 3, 1), "on the second axis"),
        (lambda images: images * torch.nan, "images hold NaN or infinity for 5 of 5"),
        (lambda images: images / 0, "images hold NaN or infinity"),
    ],
)
def test_invalid_images_are_rejected_by_every_method(model, images, make_invalid, message):
    with pytest.raises(ValueError, match=message):
        model.explain(make_invalid(images))
    with pytest.raises(ValueError, match=message):
        foveal.attribute(model, make_invalid(images), "rise")


def attention_net() -> AttentionNet:
    return AttentionNet(VGGBackbone(1, [[4], [4]]), depths=[1, 2]).eval()


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "8", None])
def test_batch_size_must_be_at_least_one(model, images, size):
    message = "Expected a batch_size of at least 1, but got"
    test = foveal.load_images("mnist-5k", "test").few(10)
    for call in (
        lambda: model.explain(images, batch_size=size),
        lambda: attention_net().contributions(images, batch_size=size),
        lambda: foveal.attribute(model, images, "rise", batch_size=size),
        lambda: foveal.evaluate(model, test, batch_size=size),
    ):
        with pytest.raises(UserError, match=message):
            call()
    assert len(model.explain(images, batch_size=np.int64(2))) == 5


@pytest.mark.parametrize(
    "targets", [[0, 1, 2, 3, 10], [0, 1, 2, 3, -1], [0, 1], 3, [0.5] * 5, [True] * 5, ["a"] * 5]
)
def test_targets_must_be_one_valid_class_per_image(images, targets):
    for call in (
        lambda: attention_net().contributions(images, targets),
        lambda: foveal.attribute(SmallCNN(), images, "gradient-x-input", targets=targets),
    ):
        with pytest.raises(UserError, match="Expected targets"):
            call()


@pytest.mark.parametrize("convert", [list, tuple, np.array, torch.tensor])
def test_targets_may_be_lists_tuples_arrays_or_tensors(images, convert):
    net = attention_net()
    targets = [3, 1, 4, 1, 5]
    expected = net.contributions(images, torch.tensor(targets)).maps
    assert torch.equal(net.contributions(images, convert(targets)).maps, expected)


def test_evaluate_and_predict_reject_arguments_of_wrong_types(model, images, tmp_path):
    test = foveal.load_images("mnist-5k", "test").few(10)
    with pytest.raises(UserError, match=r"Expected an ImageSet for test.*but got Tensor"):
        foveal.evaluate(model, images)
    with pytest.raises(UserError, match=r"Expected an ImageSet for train.*but got ndarray"):
        foveal.evaluate(model, test, images.numpy())
    with pytest.raises(UserError, match=r"Expected a Foveal model.*but got Linear"):
        foveal.evaluate(torch.nn.Linear(2, 2), test)
    with pytest.raises(UserError, match=r"source.*a name or path, but got Tensor.*model\.explain"):
        foveal.predict("mnist-cnn", images, tmp_path / "out")
    with pytest.raises(UserError, match=r"model.*a name or path, but got FocusNet"):
        foveal.predict(model, tmp_path, tmp_path / "out")
    for size in (0, -1, 1.5):
        with pytest.raises(UserError, match="Expected a batch size of at least 1"):
            foveal.predict("mnist-cnn", tmp_path, tmp_path / "out", batch_size=size)


def test_integer_size_is_the_side_of_a_square(tmp_path):
    shapes = {
        tuple(foveal.load_images("mnist-5k", "test", size=size).images.shape[-2:])
        for size in (16, np.int32(16), (16, 16), [16, 16])
    }
    assert shapes == {(16, 16)}
    for size in (0, -3, 2.5, True, "16", (16,), (1, 2, 3), (16, 0)):
        with pytest.raises(UserError, match=r"Expected a size in pixels, \(height, width\) or one"):
            foveal.load_images("mnist-5k", "test", size=size)
        with pytest.raises(UserError, match="Expected a size in pixels"):
            read_image(tmp_path / "a.png", size=size)


def test_dicts_are_plain_json(explanation):
    results = json.loads(json.dumps(explanation[[1, 3]].to_dicts(), allow_nan=False))
    assert len(results) == 2
