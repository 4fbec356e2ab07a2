"""Latency of all zoo models, measured in one run and written to their cards.

`foveal evaluate` measures it too, but models to be compared should be timed in the same run, on an
idle machine.

    python benchmarks/performance/latency.py
"""

from foveal import zoo
from foveal.foundation.files import write_json
from foveal.metrics import latency_ms


def main() -> None:
    for name in zoo.names():
        card, model = zoo.card(name), zoo.load(name)
        height, width = card["figures"]["input_size"]
        card["figures"]["latency_ms"] = round(latency_ms(model, (height, width)), 4)
        write_json(zoo.folder(name) / "card.json", card)
        print(f"{name}: {card['figures']['latency_ms']:.2f} ms")


if __name__ == "__main__":
    main()
