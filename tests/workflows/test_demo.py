"""The demo: two models trained on digits, a report, and reuse of finished runs."""

import pytest

from foveal import zoo
from foveal.foundation.errors import UserError
from foveal.training import load_recipe
from foveal.workflows import demo


@pytest.mark.slow
def test_demo_trains_two_models_writes_a_report_and_reuses_finished_runs(tmp_path, monkeypatch):
    """Each recipe is shortened to one epoch, and the zoo to one model for the report."""
    monkeypatch.setattr(demo, "load_recipe", lambda name: load_recipe(name, ["epochs=1"]))
    monkeypatch.setattr(zoo, "names", lambda: ["cifar10-cnn", "mnist-cnn", "mnist-judge"])
    lines: list[str] = []
    page = demo.run_demo(tmp_path, lines.append)
    text = page.read_text(encoding="utf-8")
    assert all(name in text for name in (*demo.RECIPES, "mnist-cnn"))
    assert "cifar10-cnn" not in text
    assert "mnist-judge" not in text
    for name in demo.RECIPES:
        assert f"{name}: training for 1 epoch" in lines
        assert zoo.card(tmp_path / "runs" / name)["val_accuracy"] > 0.5
    weights = tmp_path / "runs" / demo.RECIPES[0] / "model.safetensors"
    before = weights.stat().st_mtime_ns
    repeated_lines: list[str] = []
    demo.run_demo(tmp_path, repeated_lines.append)
    # Each of the two runs has two lines, and the first one says that the run is reused.
    assert [line for line in repeated_lines if "already trained" in line] == repeated_lines[0:3:2]
    assert weights.stat().st_mtime_ns == before


def test_run_of_another_recipe_is_an_error_that_suggests_deletion(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / demo.RECIPES[0]
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    (folder / "recipe.yaml").write_text("name: another\nmodel: {name: cnn}\n")
    with pytest.raises(UserError, match=f"To train the model again, delete {folder}"):
        demo.run_demo(tmp_path, lambda line: None)


def test_command_prints_the_path_of_the_report(tmp_path, monkeypatch, run):
    monkeypatch.setattr(demo, "run_demo", lambda out, notify: out / "index.html")
    done = run("demo", "--out", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'index.html'}\n")
