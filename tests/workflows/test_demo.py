"""The demo: two models trained on digits, a report, and no run repeated."""

import pytest

from foveal import zoo
from foveal.foundation.errors import UserError
from foveal.training import load_recipe
from foveal.workflows import demo


@pytest.mark.slow
def test_a_demo_trains_reports_and_repeats_no_finished_run(tmp_path, monkeypatch):
    """One epoch each, with one model of the zoo: the recipes themselves are trained elsewhere."""
    monkeypatch.setattr(demo, "load_recipe", lambda name: load_recipe(name, ["epochs=1"]))
    monkeypatch.setattr(zoo, "names", lambda: ["cifar10-cnn", "mnist-cnn", "mnist-judge"])
    lines: list[str] = []
    page = demo.run_demo(tmp_path, lines.append)
    text = page.read_text(encoding="utf-8")
    assert all(name in text for name in (*demo.RECIPES, "mnist-cnn"))
    assert "cifar10-cnn" not in text
    assert "mnist-judge" not in text
    for name in demo.RECIPES:
        assert f"{name}: training for 1 epochs" in lines
        assert zoo.card(tmp_path / "runs" / name)["val_accuracy"] > 0.5
    weights = tmp_path / "runs" / demo.RECIPES[0] / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again: list[str] = []
    demo.run_demo(tmp_path, again.append)
    assert [line for line in again if "already trained" in line] == again[0:3:2]
    assert weights.stat().st_mtime_ns == before


def test_a_run_of_another_recipe_is_named_with_the_way_out(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / demo.RECIPES[0]
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    (folder / "recipe.yaml").write_text("name: another\nmodel: {name: cnn}\n")
    with pytest.raises(UserError, match=f"or delete {folder}"):
        demo.run_demo(tmp_path, lambda line: None)
