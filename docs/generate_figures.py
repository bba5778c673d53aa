"""Fill measured figures into the pages that state them.

``docs/explanation/benchmarks.json`` is the only source of the figures of the benchmarks;
``python -m benchmarks --json FILE`` writes it.
Each file in ``docs/explanation/proof`` is the only source of a region ``proof NAME``; the programs that
docs/explanation/guarantees.md names write them.
``docs/explanation/peer.json`` is the only source of the regions ``peer`` and ``peer cost``;
``python -m benchmarks --peer COMMAND --json FILE`` writes it.
``docs/explanation/kubelet.json`` is the only source of the region ``kubelet``;
``python -m tests.cluster.kubelet_latency --record FILE`` writes it.
``docs/explanation/growth.json`` is the only source of the regions ``growth NAME`` and of the pictures
``docs/images/growth-NAME.svg``; ``python -m benchmarks.growth --json FILE`` writes it.
``python docs/generate_figures.py`` rewrites the marked regions of the pages and the pictures. With ``--check`` it
writes nothing and exits with 1 if a region or a picture differs from the source.
"""
# ruff: noqa: INP001 - a script beside the pages it changes; it is not part of a package

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Final

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from benchmarks.budgets import BUDGETS  # noqa: E402 - of this checkout, wherever the script is started
from benchmarks.growth_record import decode_record  # noqa: E402
from benchmarks.pictures import describe_growth, describe_limit, render_pictures, tabulate_series  # noqa: E402

SOURCE = DOCS / "explanation" / "benchmarks.json"
PEER = DOCS / "explanation" / "peer.json"
KUBELET = DOCS / "explanation" / "kubelet.json"
PROOF = DOCS / "explanation" / "proof"
GROWTH = DOCS / "explanation" / "growth.json"
IMAGES = DOCS / "images"
PAGES: Final = (DOCS.parent / "README.md", *sorted(DOCS.glob("**/*.md")))

_REGION = re.compile(
    r"(?P<start><!-- figures: (?P<name>[a-z][a-z -]*?) -->\n).*?(?P<end><!-- end of figures -->)", re.DOTALL
)

Figure = Mapping[str, Any]
"""An entry of ``figures`` in the source: ``name``, ``unit``, ``median``, ``min``, ``max``, ``values``."""
_NOT_MEASURED = "not measured"
"""What the tables show for a figure that the source does not contain yet."""

_COST: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Memory (RSS)": "RSS",
        "Memory, 10 000 devices": "10000 devices: RSS",
        "Process start to lists": "start to list, 10 resources, 1000 devices",
        "Changed ConfigMap to list": "configuration swapped to list",
        "Idle processor time": "idle CPU",
    }
)
"""What the README calls a figure, and the name of the figure."""


_PEER_COST: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Memory (PSS)": "PSS",
        "Process start to list": "start to list",
        "`Allocate`": "Allocate 1, p50",
        "New device to list": "node appears to list",
        "Kubelet restart to list": "kubelet started to list",
    }
)
"""What the README calls a figure of both plugins, and the name of the figure without the number of devices."""
_PEER_DEVICES: Final = 8


def main() -> int:
    """Rewrite the regions, or with ``--check`` report the pages that differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page differs")
    check = parser.parse_args().check
    source = json.loads(SOURCE.read_text())
    growth = decode_record(json.loads(GROWTH.read_text()))
    expected = {path: render_page(path.read_text(), source) for path in PAGES}
    expected |= {IMAGES / name: text for name, text in render_pictures(growth).items()}
    stale = [path for path, text in expected.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path}: figures differ from their source; run python docs/generate_figures.py", file=sys.stderr)
        else:
            path.write_text(expected[path])
            print(f"{path}: written")
    return int(check and bool(stale))


def render_page(text: str, source: Mapping[str, Any]) -> str:
    """Return a page with its marked regions rendered from the source."""
    figures = {figure["name"]: figure for figure in source["figures"]}

    def render_region(match: re.Match[str]) -> str:
        kind, _, name = match["name"].partition(" ")
        if kind == "proof":
            content = _proof_table(json.loads((PROOF / f"{name}.json").read_text()))
        elif kind == "growth":
            content = _growth_table(name)
        elif kind == "peer":
            content = _PEER_TABLES[name](json.loads(PEER.read_text()))
        elif kind == "kubelet":
            content = _kubelet_table(json.loads(KUBELET.read_text()))
        else:
            content = _TABLES[match["name"]](figures, source)
        return f"{match['start']}{content}{match['end']}"

    return _REGION.sub(render_region, text)


def _proof_table(record: Mapping[str, Any]) -> str:
    """Return the table of a record, and the conditions under which it was measured."""
    rows = [tuple(cell.replace("|", "\\|") for cell in row) for row in record["rows"]]
    return f"{_table(tuple(record['columns']), rows)}{_condition_line(record['conditions'])}\n\n"


def _growth_table(name: str) -> str:
    """Return the table of a series, how it grows, the size that a limit replaces, and the conditions of the series."""
    series = decode_record(json.loads(GROWTH.read_text()))[name]
    shapes = "".join(f"- {sentence}\n" for sentence in describe_growth(series))
    lines = (describe_limit(series), _condition_line(series.conditions))
    return _table(*tabulate_series(series)) + f"{shapes}\n" + "".join(f"{line}\n" for line in lines if line) + "\n"


def _peer_table(record: Mapping[str, Any]) -> str:
    """Return the table of all figures of genplug and a peer, and the conditions under which they were measured."""
    rows = []
    for figure in record["figures"]:
        if "peerFigure" in figure:
            sides = (figure, figure["peerFigure"])
            cells = [cell for side in sides for cell in (_median(side, figure["unit"]), _range(side))]
            ratio = figure["ratio"]
            rows.append((_peer_label(figure), *cells, *(("", "") if ratio is None else (_ratio(ratio), _range(ratio)))))
    head = (f"{_PEER_DEVICES} devices", "genplug", "Range", "Peer", "Range", "Ratio", "Range")
    conditions = record["conditions"] | {"rounds": record["peer"]["rounds"]}
    return f"{_table(head, rows)}{_condition_line(conditions)}\n\n"


def _peer_cost_table(record: Mapping[str, Any]) -> str:
    """Return the table of the README: the medians of some figures, with ratios."""
    figures = {_peer_label(figure): figure for figure in record["figures"] if "peerFigure" in figure}
    rows = []
    for label, name in _PEER_COST.items():
        figure = figures[name]
        ratio = "" if figure["ratio"] is None else _ratio(figure["ratio"])
        rows.append((label, _median(figure, figure["unit"]), _median(figure["peerFigure"], figure["unit"]), ratio))
    return _table(("Quantity", "genplug", "Go plugin", "Ratio"), rows)


_PEER_TABLES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = MappingProxyType(
    {"": _peer_table, "cost": _peer_cost_table}
)


def _peer_label(figure: Mapping[str, Any]) -> str:
    return str(figure["name"]).removeprefix(f"{_PEER_DEVICES} devices: ")


def _median(side: Mapping[str, Any], unit: str) -> str:
    return "not reported" if side["median"] is None else _with_unit(side["median"], unit)


def _range(side: Mapping[str, Any]) -> str:
    return "" if side["min"] is None else f"{_number(side['min'])} to {_number(side['max'])}"


def _ratio(ratio: Mapping[str, float]) -> str:
    return _number(ratio["median"])


def _kubelet_table(record: Mapping[str, Any]) -> str:
    """Return the table of the figures of real kubelets, with a median and a range for each version."""
    columns = [(f"Kubernetes {version['version']}", version["figures"], "values") for version in record["versions"]]
    columns += [
        (f"Peer, {version['version']}", version["figures"], "peerValues")
        for version in record["versions"]
        if any(figure["peerValues"] for figure in version["figures"])
    ]
    rows = []
    for number, figure in enumerate(record["versions"][0]["figures"]):
        cells = [cell for _, figures, key in columns for cell in _summarize(figures[number][key], figure["unit"])]
        rows.append((figure["name"], *cells))
    heads = [head for title, _, _ in columns for head in (title, "Range")]
    return f"{_table(('Figure', *heads), rows)}{_condition_line(record['conditions'])}\n\n"


def _summarize(values: Sequence[float], unit: str) -> tuple[str, str]:
    """Return the median and the range of values; two empty texts without values."""
    if not values:
        return "", ""
    return _with_unit(median(values), unit), f"{_number(min(values))} to {_number(max(values))}"


def _condition_line(conditions: Mapping[str, str | int]) -> str:
    return f"Conditions: {', '.join(f'{name} {value}' for name, value in conditions.items())}."


def _cost_table(figures: Mapping[str, Figure], _source: Mapping[str, Any]) -> str:
    rows = [(label, _amount(figures[name]) if name in figures else _NOT_MEASURED) for label, name in _COST.items()]
    return _table(("Quantity", "genplug"), rows)


def _full_table(figures: Mapping[str, Figure], _source: Mapping[str, Any]) -> str:
    """Return the table of all figures of the benchmarks; a figure that the source does not contain is not measured."""
    rows = []
    for name, budget in BUDGETS.items():
        limit = "" if budget.maximum is None else _number(budget.maximum)
        if (figure := figures.get(name)) is None:
            rows.append((name, _NOT_MEASURED, "", "", limit, ""))
            continue
        rows.append(
            (
                name,
                _amount(figure),
                f"{_number(figure['min'])} to {_number(figure['max'])}",
                str(len(figure["values"]) if "values" in figure else figure["runs"]),
                limit,
                "" if budget.maximum is None else "met" if figure["median"] <= budget.maximum else "**missed**",
            )
        )
    return _table(("Figure", "Median", "Range", "Runs", "Budget", ""), rows)


def _budget_table(_figures: Mapping[str, Figure], _source: Mapping[str, Any]) -> str:
    rows = [
        (name, f"{_number(budget.maximum)} {budget.unit}".rstrip())
        for name, budget in BUDGETS.items()
        if budget.maximum is not None
    ]
    return _table(("Figure", "Budget"), rows)


def _conditions(_figures: Mapping[str, Figure], source: Mapping[str, Any]) -> str:
    conditions = source["conditions"]
    date = f"Measured on {conditions['date']}: " if "date" in conditions else ""
    return (
        f"\n{date}genplug {conditions['genplug']}, Python {conditions['python']}, Linux {conditions['kernel']}, "
        f"{conditions['cores']} cores of {conditions['cpu']}, "
        f"load average before the run {conditions['load before']}.\n"
        + (f"Measured again: {again}.\n" if (again := conditions.get("measured again")) else "")
        + "\n"
    )


_TABLES: Final[Mapping[str, Callable[[Mapping[str, Figure], Mapping[str, Any]], str]]] = MappingProxyType(
    {"cost": _cost_table, "all": _full_table, "budgets": _budget_table, "conditions": _conditions}
)


def _amount(figure: Figure) -> str:
    return _with_unit(figure["median"], figure["unit"])


def _with_unit(value: float, unit: str) -> str:
    if unit == "ms" and value >= 1000:  # noqa: PLR2004 - milliseconds of a second
        return f"{_number(value / 1000)} s"
    return f"{_number(value)} {unit}".rstrip()


def _number(value: float) -> str:
    """Return at most three significant digits, whole numbers in full."""
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n" + "".join(f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|\n" for cells in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
