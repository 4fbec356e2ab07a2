"""Annotated photographs: user-supplied boxes and masks in `evaluate` and `compare`.

Annotations mark the object of a photograph. Metrics compare an explanation with them, as they do
for two controls that do not depend on the model: `centre` and `uniform`.
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.backbones import EfficientNetLite, VGGBackbone
from foveal.cli.tables import figure_lines
from foveal.datasets import load_images, with_masks
from foveal.datasets.annotations import annotated, with_annotations
from foveal.datasets.boxes import with_boxes
from foveal.evaluation import compare as comparison
from foveal.evaluation.compare import compare
from foveal.evaluation.report.compare_page import write_comparison
from foveal.explainers import CONTROLS, explainer, methods_of, own_method, post_hoc_methods
from foveal.foundation.errors import UserError
from foveal.images.photos import Photos, parts_of
from foveal.images.sizing import ShortSide
from foveal.metrics import attention_ablation, energy_inside, evidence_iou, pointing_game
from foveal.metrics.annotated import annotated_figures
from foveal.models import AttentionNet, Inputs, PlainNet, SmallCNN

SHORT = ShortSide(32)  # the size that photographs are resized to, given by their short side
SHAPES = ((40, 60), (60, 40), (40, 61), (64, 64), (40, 62))
HEADER = "file,x1,y1,x2,y2\n"


@pytest.fixture
def photos(tmp_path):
    """Write photographs of two classes with several aspect ratios, in folders train and test."""
    folder = tmp_path / "photos"
    for label, name in enumerate(("cat", "dog")):
        for split in ("train", "test"):
            for number, (height, width) in enumerate(SHAPES):
                seed = 100 * label + 10 * number + (split == "test")
                values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
                path = folder / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    return folder


def write_csv(tmp_path, *lines, header=HEADER):
    """Write a file of boxes; return its path."""
    path = tmp_path / "boxes.csv"
    path.write_text(header + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_voc(path, *boxes, prolog=""):
    """Write boxes (x1, y1, x2, y2) as an XML file in the format of Pascal VOC; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        "<object><name>cat</name><bndbox>"
        + "".join(f"<{tag}>{edge}</{tag}>" for tag, edge in zip(tags, box, strict=True))
        + "</bndbox></object>"
        for box in boxes
    )
    path.write_text(f"{prolog}<annotation><size/>{objects}</annotation>", encoding="utf-8")
    return path


def masks_by_path(images):
    """Return the mask (H, W) of each image, keyed by the last two components of its path."""
    masks = [mask for batch in parts_of(images.masks) for mask in batch[:, 0]]
    assert len(masks) == len(images)
    return {
        "/".join(path.split("/")[-2:]): mask for path, mask in zip(images.paths, masks, strict=True)
    }


def expected_mask(box, file_size, size):
    """Return a mask (H, W) of the pixels whose centres lie in a box.

    Args:
        box: (x1, y1, x2, y2) in pixels of the file.
        file_size: height and width of the file in pixels.
        size: height and width of the mask.
    """
    y, x = (
        (torch.arange(pixels) + 0.5) * length / pixels
        for pixels, length in zip(size, file_size, strict=True)
    )
    x1, y1, x2, y2 = box
    return ((y >= y1) & (y < y2))[:, None] & ((x >= x1) & (x < x2))


@pytest.mark.parametrize("size", [SHORT, (24, 30), (200, 100)])
def test_boxes_become_masks_at_the_size_of_the_loaded_image(photos, tmp_path, size):
    box = (10, 5.5, 31, 22)
    boxes = write_csv(tmp_path, "test/cat/0.png,10,5.5,31,22", "test/dog/1.png,1,1,4,40")
    images = load_images(photos, "test", size=size)
    boxed_images, notes = with_boxes(images, photos, boxes)
    assert notes == []
    assert isinstance(boxed_images.masks, Photos) == isinstance(images.images, Photos)
    for pixels, masks in zip(
        parts_of(boxed_images.images), parts_of(boxed_images.masks), strict=True
    ):
        assert masks.shape == (len(pixels), 1, *pixels.shape[2:])
    masks = masks_by_path(boxed_images)
    mask = masks.pop("cat/0.png")
    assert torch.equal(mask == 255, expected_mask(box, (40, 60), mask.shape))
    assert masks.pop("dog/1.png").any()
    assert not any(mask.any() for mask in masks.values())
    assert annotated(boxed_images).sum() == 2


def test_boxes_of_one_image_are_merged_and_extra_columns_are_ignored(photos, tmp_path):
    header = "\ufeffkind,x2,y2,file,y1,x1\n"
    boxes = write_csv(
        tmp_path, "a,10,20,test/cat/3.png,0,0", "b,64,64,test/cat/3.png,60,60", header=header
    )
    mask = masks_by_path(with_boxes(load_images(photos, "test", size=64), photos, boxes)[0])
    assert int((mask["cat/3.png"] > 0).sum()) == 10 * 20 + 4 * 4


def test_box_smaller_than_a_pixel_marks_one_pixel(photos, tmp_path):
    boxes = write_csv(tmp_path, "test/cat/3.png,63.9,0,64,0.1", "test/dog/3.png,30,30,30.5,64")
    images, _ = with_boxes(load_images(photos, "test", size=8), photos, boxes)
    masks = masks_by_path(images)
    assert masks["cat/3.png"].nonzero().tolist() == [[0, 7]]
    assert masks["dog/3.png"].nonzero().tolist() == [[row, 3] for row in range(4, 8)]


def test_boxes_refer_to_the_upright_image(photos, tmp_path):
    path = photos / "test" / "cat" / "0.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation: rotated by 90 degrees
    Image.new("RGB", (60, 40), "red").save(path, exif=exif)
    boxes = write_csv(tmp_path, "test/cat/0.jpg,0,30,40,60")
    images, notes = with_boxes(load_images(photos, "test", size=SHORT), photos, boxes)
    mask = masks_by_path(images)["cat/0.jpg"]
    assert notes == []
    assert tuple(mask.shape) == SHORT.of((60, 40))
    assert torch.equal(mask == 255, expected_mask((0, 30, 40, 60), (60, 40), mask.shape))


def test_boxes_beyond_their_image_are_clipped_or_skipped_and_counted(photos, tmp_path):
    boxes = write_csv(
        tmp_path,
        "test/cat/0.png,-5,-5,10,10",
        "test/cat/0.png,50,30,1e300,40",
        "test/cat/1.png,40,0,50,10",
        "test/cat/1.png,-9,0,0,10",
        "train/cat/0.png,1,1,9,9",  # in another split, so not reported
        "test/cat/77.png,1,1,9,9",
        "test/cat/77.png,2,2,9,9",
        "../secret.png,1,1,9,9",
    )
    images, notes = with_boxes(load_images(photos, "test", size=SHORT), photos, boxes)
    assert annotated(images).sum() == 1
    assert [line.removeprefix(f"{boxes}: ") for line in notes] == [
        f"skipped 3 boxes for 2 files that are not in {photos}: test/cat/77.png, ../secret.png",
        "clipped 2 boxes to the edges of their images",
        "skipped 2 boxes outside their images",
    ]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("test/cat/0.png,9,1,1,9", "9, 1, 1, 9"),
        ("test/cat/0.png,1,9,9,1", "1, 9, 9, 1"),
        ("test/cat/0.png,1,1,1,9", "1, 1, 1, 9"),
        ("test/cat/0.png,nan,1,9,9", "nan, 1, 9, 9"),
        ("test/cat/0.png,1,1,9,inf", "1, 1, 9, inf"),
        ("test/cat/0.png,1,one,9,9", "1, one, 9, 9"),
        ("test/cat/0.png,1,1,9", "1, 1, 9, "),
        ("test/cat/0.png", ", , , "),
    ],
)
def test_invalid_box_is_reported_with_its_line(photos, tmp_path, line, values):
    boxes = write_csv(tmp_path, "test/cat/1.png,1,1,9,9", line)
    with pytest.raises(UserError) as error:
        with_boxes(load_images(photos, "test", size=SHORT), photos, boxes)
    assert str(error.value) == (
        f"{boxes}, line 3: expected numbers x1 < x2 and y1 < y2 in pixels, but got {values}."
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "file, x1, y1, x2, y2 is missing"),
        (b"file,x1,y1,x2\n", "Expected the columns file,x1,y1,x2,y2 .*but y2 is missing"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (HEADER.encode() + b"a" * 200_000 + b",1,1,2,2\n", "line 2: field larger"),
        (HEADER.encode() + b"cat/0.png,1,1,9,9\n", "has boxes for cat/0.png, but for no image in"),
        (None, "Cannot read the boxes in .*: No such file"),
    ],
)
def test_unusable_box_file_gives_a_one_line_error(photos, tmp_path, content, reason):
    path = tmp_path / "boxes.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as error:
        with_boxes(load_images(photos, "test", size=SHORT), photos, path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layout", ["next to", "parallel", "flat"])
def test_voc_files_are_found_next_to_the_images_or_in_a_parallel_folder(photos, tmp_path, layout):
    folder = {"next to": photos, "parallel": tmp_path / "voc", "flat": tmp_path / "flat"}[layout]
    path = photos / "test" / "cat" / "0.png"
    name = path.rename(path.with_name("kitten.png")).relative_to(photos)
    target = folder / (name.name if layout == "flat" else name)
    write_voc(target.with_suffix(".xml"), (10, 5, 31, 22), prolog='<?xml version="1.0"?>')
    images = load_images(photos, "test", size=SHORT)
    boxed_images, notes = with_boxes(images, photos, folder)
    mask = masks_by_path(boxed_images)["cat/kitten.png"]
    assert torch.equal(mask == 255, expected_mask((10, 5, 31, 22), (40, 60), mask.shape))
    assert (int(annotated(boxed_images).sum()), notes) == (1, [])


def test_voc_file_that_matches_several_images_is_rejected(photos, tmp_path):
    write_voc(tmp_path / "flat" / "0.xml", (1, 1, 9, 9))
    with pytest.raises(UserError, match=r"'0' in .* match test/.*/0.png and another image"):
        with_boxes(load_images(photos, "test", size=SHORT), photos, tmp_path / "flat")


BOMB = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;&b;">]>'
VOC = "<annotation><object><bndbox>{}</bndbox></object></annotation>"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB + VOC.format("<xmin>&c;</xmin>"), "<!DOCTYPE is not allowed"),
        (
            '<?xml version="1.0"?>\n<!DOCTYPE annotation SYSTEM "file:///etc/passwd"><annotation/>',
            "<!DOCTYPE",
        ),
        ("<!ENTITY a 'b'><annotation/>", "<!ENTITY is not allowed"),
        ((BOMB + VOC.format("")).encode("utf-16"), "not UTF-8"),
        (
            '<?xml version="1.0" encoding="cp037"?><annotation>&b;</annotation>',
            "is not XML: undefined entity",
        ),
        ("<annotation>", "is not XML"),
        ("", "is not XML"),
        ("<kml/>", "root element <annotation> .*got <kml>"),
        (VOC.format("<xmin>1</xmin>"), r"object 1: expected numbers.*but got 1, , , \."),
        (VOC.format("<xmin>9</xmin><ymin>1</ymin><xmax>1</xmax><ymax>9</ymax>"), "9, 1, 1, 9"),
        ("<annotation>" + " " * 2**20 + "</annotation>", "larger than 1,048,576 bytes"),
    ],
)
def test_unusable_voc_file_gives_a_one_line_error_with_its_path(photos, content, reason):
    path = photos / "test" / "cat" / "0.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=reason) as error:
        with_boxes(load_images(photos, "test", size=SHORT), photos, photos)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_folder_without_voc_files_is_an_error(photos):
    with pytest.raises(UserError, match=r"Expected VOC annotations .*found none"):
        with_boxes(load_images(photos, "test", size=SHORT), photos, photos)


def write_mask(masks, name, height, width, value=255):
    """Write a mask with this value in its top left quarter, and 0 elsewhere."""
    path = masks / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width), np.uint8)
    pixels[: height // 2, : width // 2] = value
    Image.fromarray(pixels).save(path)


def test_masks_may_cover_only_some_photos(photos, tmp_path):
    masks = tmp_path / "masks"
    write_mask(masks, "test/cat/0.png", 40, 60)
    write_mask(masks, "test/dog/1.png", 60, 40)
    write_mask(masks, "test/dog/2.png", 40, 61, value=0)
    images = load_images(photos, "test", size=SHORT)
    messages = []
    masked_images = with_annotations(images, str(photos), masks=masks, notify=messages.append)
    assert messages == ["2 of 10 images have an annotation"]
    by_path = masks_by_path(masked_images)
    for name in ("cat/0.png", "dog/1.png"):
        height, width = by_path[name].shape
        expected = torch.zeros(height, width, dtype=torch.uint8)
        expected[: height // 2, : width // 2] = 255
        assert torch.equal(by_path[name], expected)
    assert sum(bool(mask.any()) for mask in by_path.values()) == 2
    with pytest.raises(UserError, match=r"Expected a mask for .*test/cat/.*\.png"):
        with_masks(images, photos, masks)
    with pytest.raises(UserError, match="Expected a mask for"):
        with_annotations(images, str(photos), masks=tmp_path)
    with pytest.raises(UserError, match="boxes or masks"):
        with_annotations(images, str(photos), masks=masks, boxes=masks)


def test_mask_that_differs_in_size_from_its_photo_is_an_error(photos, tmp_path):
    write_mask(tmp_path / "masks", "test/cat/0.png", 60, 40)
    with pytest.raises(UserError, match=r"has 60x40 pixels, but its image .* has 40x60"):
        with_masks(load_images(photos, "test", size=SHORT), photos, tmp_path / "masks", partly=True)


def test_small_spot_survives_the_shrinking_of_its_mask(photos, tmp_path):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[62, 1] = 255
    (tmp_path / "masks/test/cat").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "masks/test/cat/3.png")
    images = load_images(photos, "test", size=8)
    masks = masks_by_path(with_masks(images, photos, tmp_path / "masks", partly=True))
    assert masks["cat/3.png"].nonzero().tolist() == [[7, 0]]


def test_annotations_of_a_named_photo_dataset_are_used_by_default(photos, tmp_path):
    base = tmp_path / "data" / "photos"
    base.mkdir(parents=True)
    photos.rename(base / "deeppcb")
    (base / "deeppcb-boxes.csv").write_text(f"{HEADER}test/cat/0.png,1,1,30,30\n")
    images = load_images("deeppcb", "test", size=SHORT, data_dir=tmp_path / "data")
    messages = []
    with_annotations(images, "deeppcb", data_dir=tmp_path / "data", notify=messages.append)
    assert messages == ["1 of 10 images have an annotation"]
    write_mask(base / "isic2017-masks", "test/cat/0.png", 40, 60)
    (base / "deeppcb").rename(base / "isic2017")
    images = load_images("isic2017", "test", size=SHORT, data_dir=tmp_path / "data")
    masked_images = with_annotations(
        images, "isic2017", data_dir=tmp_path / "data", notify=messages.append
    )
    assert annotated(masked_images).sum() == 1
    # Without the file of annotations, the images stay as they are.
    (base / "isic2017-masks").rename(base / "other")
    assert with_annotations(images, "isic2017", data_dir=tmp_path / "data") is images


def test_annotations_require_a_folder_of_images(tmp_path):
    images = load_images("mnist-5k", "test")
    with pytest.raises(
        UserError, match="Boxes require a folder of image files, but 'mnist-5k' is not one"
    ):
        with_annotations(images, "mnist-5k", boxes=write_csv(tmp_path))


def test_batches_hold_images_of_one_size_with_their_labels_masks_and_paths(photos, tmp_path):
    boxes = write_csv(tmp_path, "test/cat/0.png,1,1,30,30", "test/dog/4.png,1,1,30,30")
    images, _ = with_boxes(load_images(photos, "test", size=SHORT), photos, boxes)
    batches = list(images.batches(2))
    assert [len(batch) for batch in batches] == [2, 2, 2, 2, 2]
    assert [path for batch in batches for path in batch.paths] == list(images.paths)
    assert torch.cat([batch.labels for batch in batches]).tolist() == images.labels.tolist()
    for batch in batches:
        assert batch.images.shape[2:] == batch.masks.shape[2:]
        for path, mask in zip(batch.paths, batch.masks, strict=True):
            assert bool(mask.any()) == path.endswith(("cat/0.png", "dog/4.png"))
    assert all(len(batch) == 1 for batch in images.batches(9, pixels=32 * 32))
    few = images.few(4, seed=1)
    assert len(set(few.paths)) == 4
    assert few.labels.bincount().tolist() == [2, 2]
    assert [image.shape for batch in few.batches(1) for image in batch.images] == [
        mask[0].expand(3, -1, -1).shape for batch in few.batches(1) for mask in batch.masks
    ]


@pytest.fixture
def plain_model(tmp_path):
    """Save a model whose logits are sums over locations; return its folder and the model."""
    torch.manual_seed(0)
    inputs = Inputs(short_side=32, classes=("cat", "dog"))
    model = PlainNet(EfficientNetLite(), num_classes=2, inputs=inputs).eval()
    model.save_pretrained(tmp_path / "plain")
    return tmp_path / "plain", model


# Lines of a file of boxes.
BOXES = ("test/cat/0.png,1,1,30,30", "test/cat/1.png,1,1,30,30", "test/dog/3.png,50,50,60,60")


def expected_figures(model, images, method, targets=None):
    """Return the mean of each metric over the annotated images, computed image by image.

    The predicted class is explained, or if `targets` is not None, the class of the label.
    """
    rows = []
    for batch in images.batches(1):
        if not batch.masks.any():
            continue
        classes = None if targets is None else batch.labels
        explanation = explainer(method)(model, batch.images / 255, classes)
        rows.append([float(metric(explanation, batch.masks)) for metric in FIGURES.values()])
    return dict(zip(FIGURES, torch.tensor(rows).nanmean(dim=0).tolist(), strict=True))


FIGURES = {
    "pointing_game": pointing_game,
    "energy_inside": energy_inside,
    "evidence_iou": evidence_iou,
}


def test_evaluate_measures_the_models_own_explanation_on_annotations(
    photos, tmp_path, plain_model, run
):
    folder, model = plain_model
    boxes = write_csv(tmp_path, *BOXES, "test/cat/99.png,1,1,2,2")
    done = run("evaluate", folder, "--data", photos, "--boxes", boxes, "--json")
    assert done.returncode == 0, done.stderr
    assert "3 of 10 images have an annotation" in done.stderr
    assert "skipped 1 boxes for 1 files that are not in" in done.stderr
    figures = json.loads(done.stdout)
    assert figures["annotated_images"] == 3
    images, _ = with_boxes(load_images(photos, "test", size=SHORT), photos, boxes)
    expected = expected_figures(model, images, "contributions")
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=1e-4)
    mask_fractions = [float((mask > 0).float().mean()) for mask in masks_by_path(images).values()]
    assert figures["uniform_pointing_game"] == pytest.approx(sum(mask_fractions) / 3, abs=1e-6)
    lines = figure_lines(figures)
    assert any(line.split() == ["annotated", "3"] for line in lines)
    assert any(line.split()[:2] == ["centre", "hits"] for line in lines)


def test_model_that_does_not_explain_itself_has_no_annotation_metrics(photos, tmp_path):
    torch.manual_seed(0)
    model = SmallCNN(3, 2, widths=[4, 4], inputs=Inputs(short_side=32, classes=("cat", "dog")))
    assert own_method(model) is None
    boxes = write_csv(tmp_path, *BOXES)
    images, _ = with_boxes(load_images(photos, "test", size=SHORT), photos, boxes)
    assert annotated_figures(model.eval(), images) is None


def test_model_that_reads_images_in_part_rejects_annotations(tmp_path, run):
    done = run(
        "evaluate", "megapixel-mnist-focus", "--data", "megapixel-mnist", "--masks", tmp_path
    )
    assert done.returncode == 1
    assert "reads images in part and cannot use boxes or masks" in done.stderr


@pytest.fixture
def attentive(tmp_path):
    """Save a small model with maps and contributions; return its folder and the model."""
    torch.manual_seed(0)
    inputs = Inputs(short_side=32, classes=("cat", "dog"))
    backbone = VGGBackbone(3, [[4], [8]])
    model = AttentionNet(backbone, depths=[1, 2], num_classes=2, inputs=inputs).eval()
    model.save_pretrained(tmp_path / "attentive")
    return str(tmp_path / "attentive"), model


def test_compare_measures_photos_of_mixed_aspect_ratios_with_controls(photos, tmp_path, attentive):
    folder, model = attentive
    boxes = write_csv(tmp_path, *BOXES)
    settings = {"boxes": boxes, "methods": ["grad-cam"]}
    messages = []
    result = compare([folder], str(photos), tmp_path / "out", notify=messages.append, **settings)
    assert "3 of 10 images have an annotation" in messages
    rows = {row["method"]: row for row in result.explanations}
    assert list(rows) == ["model", "contributions", "grad-cam", "centre", "uniform"]
    images, _ = with_boxes(load_images(photos, "test", size=SHORT), photos, boxes)
    for method, row in rows.items():
        assert row["annotated_images"] == 3
        for name, value in expected_figures(model, images, method).items():
            assert row[name] == pytest.approx(value, abs=1e-4), (method, name)
        assert 0 <= row["deletion"] <= 1
        assert 0 <= row["insertion"] <= 1
    assert rows["uniform"]["cost_forward_passes"] == 1.0 < rows["grad-cam"]["cost_forward_passes"]
    page = write_comparison(result, tmp_path / "out").read_text(encoding="utf-8")
    assert "Hits, energy inside and evidence IoU are means over the 3 images" in page
    assert "The images differ in size, so figures that need a" in page


def test_compare_stores_metrics_of_label_explanations_separately(
    photos, tmp_path, attentive, monkeypatch
):
    folder, model = attentive
    boxes = write_csv(tmp_path, *BOXES)
    settings = {"boxes": boxes, "methods": [], "images": 6}
    prediction_result = compare([folder], str(photos), tmp_path / "out", **settings)
    label_result = compare([folder], str(photos), tmp_path / "out", explain="label", **settings)
    prediction_rows, label_rows = (
        {row["method"]: row for row in result.explanations}
        for result in (prediction_result, label_result)
    )
    expected = expected_figures(model, label_result.test, "contributions", targets="labels")
    for name, value in expected.items():
        assert label_rows["contributions"][name] == pytest.approx(value, abs=1e-4)
    assert label_rows["contributions"]["deletion"] != prediction_rows["contributions"]["deletion"]
    assert label_rows["centre"]["pointing_game"] == prediction_rows["centre"]["pointing_game"]
    page = write_comparison(label_result, tmp_path / "out").read_text(encoding="utf-8")
    assert "explain the logit of the true class" in page
    monkeypatch.setattr(comparison, "explanation_figures", lambda *arguments: {})
    repeated = compare([folder], str(photos), tmp_path / "out", explain="label", **settings)
    assert repeated.explanations == label_result.explanations


def test_compare_rejects_options_that_require_images_of_one_size(photos, tmp_path, attentive):
    folder, _ = attentive
    for options, reason in (
        ({"explain": "truth"}, "Unknown logit to explain 'truth'"),
        ({"published": 2}, "images of one size"),
        ({"judge": "cifar10-judge"}, "cifar10-judge needs images of one size"),
    ):
        with pytest.raises(UserError, match=reason):
            compare([folder], str(photos), tmp_path / "out", **options)


def test_contributions_come_before_post_hoc_methods(plain_model):
    _, model = plain_model
    assert methods_of(model) == ("contributions", *post_hoc_methods())


def test_dataset_without_training_images_can_be_compared(photos, tmp_path, attentive):
    folder, _ = attentive
    base = tmp_path / "data" / "photos"
    base.mkdir(parents=True)
    (photos / "test").rename(base / "imagenet-val-1000")
    (base / "imagenet-val-1000-boxes.csv").write_text(f"{HEADER}cat/0.png,1,1,30,30\n")
    settings = {"methods": [], "data_dir": tmp_path / "data"}
    result = compare([folder], "imagenet-val-1000", tmp_path / "out", **settings)
    assert [row["method"] for row in result.explanations] == ["model", "contributions", *CONTROLS]
    assert {row["annotated_images"] for row in result.explanations} == {1}


def test_attention_ablation_accepts_photos_of_several_sizes(photos):
    torch.manual_seed(0)
    inputs = Inputs(short_side=32, classes=("cat", "dog"))
    backbone = VGGBackbone(3, [[4], [8]])
    model = AttentionNet(backbone, depths=[2], num_classes=2, inputs=inputs).eval()
    images = load_images(photos, "test", size=SHORT)
    ablation = attention_ablation(model, images)
    correct = 0
    with torch.no_grad():
        for batch in images.by_size():
            local, maps = model.attend(model.view(batch.images))
            uniform = [torch.full_like(values, 1 / values[0].numel()) for values in maps]
            correct += int((model.combine(local, uniform).argmax(dim=1) == batch.labels).sum())
    assert ablation.uniform_attention_accuracy == pytest.approx(correct / len(images))
    assert 0 <= ablation.shuffled_attention_accuracy <= 1
    with pytest.raises(UserError, match="at least 2 images"):
        attention_ablation(model, images.subset(torch.tensor([0])))


def test_centre_heat_falls_outwards_and_uniform_heat_scores_the_area(plain_model):
    _, model = plain_model
    images = torch.rand(2, 3, 32, 64)
    centre = explainer("centre")(model, images)
    assert tuple(centre.maps.shape) == (2, 1, 32, 64)
    assert torch.equal(centre.logits, model.explain(images).logits)
    heat = centre.heat[0]
    assert heat[15:17, 31:33].min() == heat.max()  # the four pixels in the middle
    assert heat[0, 0] == heat.min() == 0
    assert (heat[15, 32:].diff() < 0).all()
    truth = torch.zeros(2, 32, 64)
    truth[:, :8] = 1  # a quarter of the image
    uniform = explainer("uniform")(model, images)
    assert pointing_game(uniform, truth).tolist() == [0.25, 0.25]
    assert energy_inside(uniform, truth).tolist() == [0.25, 0.25]
