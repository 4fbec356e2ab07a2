"""The command line: parses, calls, prints; a command imports what it needs when it runs."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from foveal.errors import UserError

app = typer.Typer(
    name="foveal",
    help="Image classifiers that show what they looked at.\n\nStart with: foveal demo",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DataOption = Annotated[
    str, typer.Option("--data", help="A dataset (mnist-5k, mnist, …), a folder, or hf:OWNER/NAME.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(envvar="FOVEAL_DATA", help="Where named datasets lie.", show_envvar=True),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def say(text: str) -> None:
    """Print for people: on stderr, so that stdout holds results alone."""
    print(text, file=sys.stderr, flush=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
) -> None:
    """Train two models on real digits, offline, and write a report of where they look.

    Example: foveal demo --out report
    """
    from foveal.demo import run_demo

    print(run_demo(out, say))


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    data: Annotated[
        str | None, typer.Option(help="A dataset or folder in place of the recipe's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/RECIPE if not given.")] = None,
    data_dir: DataDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
    devices: Annotated[str, typer.Option(help="How many devices, or auto.")] = "auto",
    precision: Annotated[str, typer.Option(help="As Lightning takes it.")] = "32-true",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train a recipe and write a run folder.

    Example: foveal train mnist-focus --data photos/ --out runs/photos epochs=20
    """
    from foveal.training import is_first_process, load_recipe
    from foveal.training import train as run

    if devices != "auto" and not (devices.isdigit() and int(devices) > 0):
        raise UserError(f"Expected --devices a number above 0, or auto, but got {devices!r}.")
    chosen = load_recipe(recipe, overrides)
    folder = run(
        chosen,
        out or Path("runs") / chosen.name,
        data=data,
        data_dir=data_dir,
        resume=resume,
        devices=devices if devices == "auto" else int(devices),
        precision=precision,
        progress=not quiet,
    )
    if not is_first_process():
        return
    from foveal.zoo import card

    figures = card(folder)
    reached = (
        f"accuracy {figures['val_accuracy']:.2%}"
        if "val_accuracy" in figures
        else f"mean squared error {figures['val_mse']:.5f}"
    )
    say(
        f"Validation {reached} after epoch {figures['epoch'] + 1}, "
        f"{figures['training_seconds']:.0f} s. Next: foveal evaluate {folder} --data …"
    )
    print(folder)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A zoo name, a run folder, or OWNER/NAME.")],
    data: DataOption,
    data_dir: DataDir = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    judge: Annotated[
        str | None, typer.Option(help="A model to judge the evidence; the zoo's if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of probes and pairs.")] = 0,
    card: Annotated[bool, typer.Option("--card", help="Write the figures into the card.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy, cost and honesty on a dataset.

    Example: foveal evaluate mnist-focus --data mnist --json
    """
    from foveal import zoo
    from foveal.evaluation import evaluate_on, format_figures

    figures = evaluate_on(
        model, data, split=split, data_dir=data_dir, judge=judge, seed=seed, say=say
    )
    if card:
        from foveal.training.run import write_json

        folder = zoo.folder(model)
        write_json({**zoo.card(model), "figures": figures}, folder / "card.json")
    print(json.dumps(figures) if as_json else format_figures(figures))


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="A zoo name, a run folder, or OWNER/NAME.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures.")] = None,
    method: Annotated[
        str, typer.Option(help="model for its own explanation, or a rival such as grad-cam.")
    ] = "model",
    as_json: AsJson = False,
) -> None:
    """Show what a model looks at in images: keypoints, patches and classes.

    Example: foveal explain mnist-focus digit.png --out pictures
    """
    from foveal.evaluation import explain_files

    answers, failed = explain_files(model, images, out, say, method)
    if as_json:
        print(json.dumps({"model": model, "images": answers}))
    else:
        for answer in answers:
            if "error" not in answer:
                picture = f"  {answer['picture']}" if "picture" in answer else ""
                print(f"{answer['path']}: {_said(answer)}{picture}")
    if failed:
        raise typer.Exit(1)


def _said(answer: dict[str, Any]) -> str:
    if "probabilities" not in answer:
        return f"rebuilt with a mean squared error of {answer['rebuilding_mse']:.4f}"
    best = answer["probabilities"][0]
    return f"{best['class']} ({best['probability']:.1%})"


@app.command()
def compare(
    models: Annotated[list[str], typer.Argument(help="Zoo names, run folders, or OWNER/NAME.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("comparison"),
    images: Annotated[int, typer.Option(help="Images to compare on.", min=2)] = 1000,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    judge: Annotated[
        str | None, typer.Option(help="A model to judge the evidence; the zoo's if not given.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="A rival, such as grad-cam; again for others.")
    ] = None,
    published: Annotated[
        int, typer.Option(help="Images for the field's published metrics (Quantus).", min=0)
    ] = 0,
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(help="Seed of images, probes and pairs.")] = 0,
) -> None:
    """Measure models and explanations side by side, and write a report.

    What was finished is kept: give the same command to go on.

    Example: foveal compare mnist-focus mnist-cnn --data mnist --out comparison
    """
    from foveal.comparison import compare as run
    from foveal.progress import progress_bar
    from foveal.report.compare_page import write_comparison

    with progress_bar() as progress:
        found = run(
            models,
            data,
            out,
            split=split,
            images=images,
            data_dir=data_dir,
            judge=judge,
            methods=method,
            published=published,
            seed=seed,
            progress=progress,
        )
        print(write_comparison(found, out))


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the zoo, with each card's figures.

    Example: foveal models
    """
    from foveal.evaluation import format_zoo, zoo_cards

    cards = zoo_cards()
    print(json.dumps(cards) if as_json else format_zoo(cards))


@app.command()
def recipes() -> None:
    """List the recipes that `foveal train` knows.

    Example: foveal recipes
    """
    from foveal.training.recipe import recipe_names

    print("\n".join(recipe_names()))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's error is one line and exit status 1."""
    try:
        app(args=arguments, standalone_mode=True)
    except UserError as error:
        say(f"foveal: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("foveal: interrupted.")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        what: Any = error.filename or "file"
        say(f"foveal: {what}: {error.strerror or error}")
        sys.exit(1)
