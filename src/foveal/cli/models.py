"""`foveal models`."""

import json

from foveal.cli.app import AsJson, app


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the zoo, with each card's figures.

    Example: foveal models
    """
    from foveal.evaluation import format_zoo, zoo_cards

    cards = zoo_cards()
    print(json.dumps(cards) if as_json else format_zoo(cards))
