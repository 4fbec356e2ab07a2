"""The public API: a change of public names or arguments must also be made in this list."""

import inspect

import pytest

import foveal

# For a class, these are the arguments of its constructor. Defaults are omitted, as they may change.
SIGNATURES = {
    "AttentionNet": (
        "backbone [depths] [compatibility] [normalise] [join] [standardise] [num_classes] "
        "[dropout] [logit_scale] [inputs]"
    ),
    "Explanation": (
        "images logits [keypoints] [patches] [scales] [maps] [rebuilt] [thumbnail] "
        "[weights] [task_logits] [contributions] [blocks] [extent] [classes] [method] [cost] "
        "[originals] [values]"
    ),
    "FocusNet": "detector head [patch_size] [jitter_px] [inputs]",
    "Inputs": "[size] [mean] [std] [classes] [ids] [short_side]",
    "SANet": (
        "[kind] [blocks] [widths] [sides] [pool_first] [whiten] "
        "[in_channels] [num_classes] [inputs]"
    ),
    "SmallCNN": "[in_channels] [num_classes] [widths] [dropout] [inputs]",
    "UserError": "*args",
    "attribute": "model images method * [targets] [batch_size] [classes] [layer] [reshape] [seed]",
    "evaluate": "model test [train] * [judge] [name] [batch_size] [seed] [progress]",
    "load": "model",
    "load_images": "source split * [size] [channels] [data_dir] [groups]",
    "load_recipe": "name [overrides]",
    "predict": (
        "model source out * [engine] [address] [resume] [explain] [batch_size] [shard_size] "
        "[workers] [device] [runtime] [bar]"
    ),
    "train": (
        "recipe out * [data] [data_dir] [resume] [devices] [nodes] "
        "[strategy] [sync_norm] [precision] [progress] [keep_features] [callbacks] [notify]"
    ),
}
MODULES = {"datasets", "detectors", "explainers", "geometry", "heads", "metrics", "models"}
MODULES |= {"plotting", "zoo"}


def arguments(name):
    """Return the argument names of a public name, written as in SIGNATURES.

    Optional arguments are in brackets, and * precedes those that must be given by keyword.
    """
    parts, has_star = [], False
    public = getattr(foveal, name)
    if inspect.isclass(public) and issubclass(public, Exception):
        return "*args"  # as for any exception
    for argument in inspect.signature(public).parameters.values():
        if argument.kind is argument.KEYWORD_ONLY and not has_star:
            parts.append("*")
            has_star = True
        mark = {argument.VAR_POSITIONAL: "*", argument.VAR_KEYWORD: "**"}.get(argument.kind, "")
        is_optional = argument.default is not argument.empty
        parts.append(f"[{argument.name}]" if is_optional else mark + argument.name)
    return " ".join(parts)


def test_the_public_names_are_unchanged():
    assert set(foveal.__all__) == set(SIGNATURES) | MODULES


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_arguments_of_public_names_are_unchanged(name):
    assert arguments(name) == SIGNATURES[name]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_exported_name_of_a_public_module_exists(name):
    module = getattr(foveal, name)
    assert inspect.ismodule(module)
    exported = getattr(module, "__all__", [])
    assert [name for name in exported if not hasattr(module, name)] == []
