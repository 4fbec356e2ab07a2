"""Recipes, the settings of training runs: loading, overrides and errors."""

import pytest
import yaml

from foveal.foundation.errors import UserError
from foveal.training import load_recipe, parse_recipe, recipe_names, recipe_text
from foveal.training.recipe import write_recipe


def test_every_recipe_can_be_loaded_and_has_the_name_of_its_file():
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_a_written_recipe_reads_back_the_same(tmp_path):
    recipe = load_recipe("cifar10-focus-wide", ["data.size=[40, 32]"])
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_overrides_may_omit_the_section_of_a_key():
    recipe = load_recipe(
        "mnist-focus", ["epochs=3", "augment.shift=1", "model.patch_size=7", "data.size=32"]
    )
    assert recipe.training.epochs == 3
    assert recipe.augment.shift == 1
    assert recipe.model["patch_size"] == 7
    assert recipe.data.size == (32, 32)


def test_an_empty_override_clears_a_text():
    assert load_recipe("megapixel-mnist-focus", ["large.first="]).large.first == ""


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=3", "Did you mean 'epochs'"),
        ("training.lrr=3", "Did you mean 'lr'"),
        ("epochs", "Expected key=value"),
        ("epochs=many", "Expected training.epochs"),
        ("epochs=0", "Expected training.epochs"),
        ("batch_size=-1", "Expected training.batch_size"),
        ("honesty.probes=0", "Expected honesty.probes"),
        ("honesty.settle=1", "Expected honesty.settle of at least 0 and below 1"),
        ("lr=.nan", "Expected training.lr"),
        ("lr=.inf", "Expected training.lr"),
        ("flip=3", "Expected augment.flip"),
        ("optimizer=adam", "Did you mean 'adamw'"),
        ("data.size=[0, 5]", "Expected data.size"),
        ("data.channels=2", "Expected data.channels"),
        ("about=[3]", "'about' must be a line of text"),
        ("name.x=1", "'name' has no keys"),
        ("epochs=[", "Cannot read the value"),
    ],
)
def test_an_invalid_override_states_what_was_expected(override, message):
    with pytest.raises(UserError, match=message):
        load_recipe("mnist-focus", [override])


def test_an_unknown_recipe_suggests_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'mnist-focus'"):
        load_recipe("mnist-focsu")


def test_a_misspelt_key_in_a_file_suggests_the_nearest_key(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nmodel: {name: cnn}\ntraning: {epochs: 3}\n")
    with pytest.raises(UserError, match="Did you mean 'training'"):
        load_recipe(path)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [", "name: x\n", "name: x\nmodel: cnn\n"])
def test_a_broken_file_is_a_one_line_error(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_recipe(path)
    assert "\n" not in str(error.value)


def test_a_recipe_cannot_build_python_objects(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []\nmodel: {name: cnn}\n")
    with pytest.raises(UserError, match=r"Cannot read .*mine\.yaml: not YAML"):
        load_recipe(path)


def test_a_missing_file_is_an_error():
    with pytest.raises(UserError, match=r"No recipe at nowhere\.yaml"):
        load_recipe("nowhere.yaml")


def test_a_recipe_requires_a_model():
    with pytest.raises(UserError, match="no 'model'"):
        parse_recipe({"name": "x"})


def test_the_text_of_a_recipe_is_its_file_with_comments():
    text = recipe_text("mnist-focus")
    assert parse_recipe(yaml.safe_load(text)) == load_recipe("mnist-focus")
    with pytest.raises(UserError, match="Did you mean 'mnist-focus'"):
        recipe_text("mnist-focsu")
