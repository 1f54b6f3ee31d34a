"""What was measured, as tables in Markdown."""

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

Results = dict[str, dict[str, Any]]


def print_tables(folder: Path) -> None:
    found: Results = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    for print_one in (
        _domains,
        _seeds,
        _bounds,
        _heads,
        _published,
        _sizes,
        _large,
        _topics,
        _smollm,
        _others,
    ):
        print_one(found)
        print()


def _of(found: Results, title: str) -> Results:
    """Results by domain."""
    return {name.removeprefix(f"{title}, "): r for name, r in found.items() if name.startswith(f"{title}, ")}


def _row(cells: Iterable[object]) -> None:
    print(f"| {' | '.join(map(str, cells))} |")


def _head(*cells: str) -> None:
    _row(cells)
    _row("---" for _ in cells)


def _shown(result: dict[str, Any], value: str = "coefficient", error: str = "stderr") -> str:
    return f"{result[value]:.4f} ± {result[error]:.4f}"


def _domains(found: Results) -> None:
    _head("texts", "three disjoint draws", "noise of the first", "Vendi", "mean features", "distinct-2")
    parts = [_of(found, f"part {part}") for part in range(3)]
    for name, first in sorted(parts[0].items(), key=lambda item: item[1]["coefficient"]):
        draws = ", ".join(_shown(part[name]) for part in parts if name in part)
        noise = _shown(first, "noise", "noise_stderr")
        _row(
            [
                name,
                draws,
                noise,
                f"{first['vendi']:.2f}",
                f"{first['feature_dispersion']:.4f}",
                f"{first['n_grams'][1]:.3f}",
            ]
        )


def _seeds(found: Results) -> None:
    """By how much draws of one domain differ, in units of the error of the difference."""
    parts = [_of(found, f"part {part}") for part in range(3)]
    ratios = [
        (a[name]["coefficient"] - b[name]["coefficient"]) / np.hypot(a[name]["stderr"], b[name]["stderr"])
        for a, b in itertools.combinations(parts, 2)
        for name in a.keys() & b.keys()
    ]
    shares = [r["noise"] / r["coefficient"] for part in parts for r in part.values()]
    if ratios:
        within = np.mean(np.abs(ratios) < 2)
        print(f"{len(ratios)} differences between draws: root mean square {np.sqrt(np.mean(np.square(ratios))):.2f} "
              f"errors, {within:.0%} below 2; noise / coefficient {np.mean(shares):.3f} ± "
              f"{np.std(shares, ddof=1) / np.sqrt(len(shares)):.3f}")  # fmt: skip


def _bounds(found: Results) -> None:
    for name, result in _of(found, "bounds").items():
        print(f"bounds with {name}: {_shown(result['lower'])} and {_shown(result['upper'])}")


def _heads(found: Results) -> None:
    base = _of(found, "part 0")
    _head("head", "mean coefficient", "rank correlation with pretrained", "cost", "texts")
    for title in ("head bias", "head full"):
        _agreement(title.split()[1], base, _of(found, title))


def _published(found: Results) -> None:
    none = _of(found, "published none")
    _head("estimator", "mean coefficient", "rank correlation with none", "cost", "texts")
    for title in dict.fromkeys(name.partition(", ")[0] for name in found if name.startswith("published")):
        _agreement(title.removeprefix("published "), none, _of(found, title))
    _agreement("ours", none, _of(found, "part 0"))


def _agreement(name: str, base: Results, other: Results) -> None:
    names = sorted(base.keys() & other.keys())
    if not names:
        return
    a, b = ([r[n]["coefficient"] for n in names] for r in (base, other))
    cost = sum(other[n]["seconds"] for n in names) / sum(base[n]["seconds"] for n in names)
    mean = f"{np.mean(b):.4f} (noise {np.mean([other[n]['noise'] for n in names]):.4f})"
    _row([name, mean, f"{_rank(a, b):.2f}", f"{cost:.2f}", len(names)])


def _rank(a: Sequence[float], b: Sequence[float]) -> float:
    return float(spearmanr(a, b).statistic) if len(a) > 2 else float("nan")


def _sizes(found: Results) -> None:
    _head("batch size", *_of(found, "size 4"))
    for size in (4, 16, 32):
        own = _of(found, "part 0" if size == 16 else f"size {size}")
        _row([size, *(_shown(own[name]) if name in own else "" for name in _of(found, "size 4"))])


def _large(found: Results) -> None:
    """Larger batches, and by how many errors the union is above each of its parts."""
    for size in (64, 128):
        rows, bounds = _of(found, f"large {size}"), _of(found, f"large bounds {size}")
        union = rows.get("union")
        if not rows:
            continue
        _head(f"batches of {size}", "coefficient", "of the union less this", "mean features", "distinct-2")
        for name, r in sorted(rows.items(), key=lambda item: item[1]["coefficient"]):
            _row(
                [name, _shown(r), _less(union, r), f"{r['feature_dispersion']:.4f}", f"{r['n_grams'][1]:.3f}"]
            )
        for name, result in bounds.items():
            print(f"bounds with {name}: {_shown(result['lower'])} and {_shown(result['upper'])}")
        print()


def _less(a: dict[str, Any] | None, b: dict[str, Any]) -> str:
    if a is None or a is b:
        return ""
    error = np.hypot(a["stderr"], b["stderr"])
    difference = a["coefficient"] - b["coefficient"]
    return f"{difference:.4f} ± {error:.4f} ({difference / error:.1f})"


def _smollm(found: Results) -> None:
    rows = _of(found, "SmolLM2 16")
    _head("SmolLM2-135M", "coefficient", "noise", "of the union less this", "mean features", "seconds")
    for name, r in sorted(rows.items(), key=lambda item: item[1]["coefficient"]):
        noise = _shown(r, "noise", "noise_stderr")
        _row(
            [
                name,
                _shown(r),
                noise,
                _less(rows.get("union"), r),
                f"{r['feature_dispersion']:.4f}",
                f"{r['seconds']:.0f}",
            ]
        )
    print()
    base = _of(found, "SmolLM2 head pretrained")
    _head("head of SmolLM2", *base, "seconds")
    for head in ("pretrained", "bias", "full"):
        own = _of(found, f"SmolLM2 head {head}")
        shown = [_shown(own[name]) if name in own else "" for name in base]
        _row([head, *shown, f"{sum(r['seconds'] for r in own.values()):.0f}"])


def _topics(found: Results) -> None:
    for title in ("topics", "large topics"):
        for name, result in _of(found, title).items():
            print(f"{title}, {name}: {_shown(result)}, noise {_shown(result, 'noise', 'noise_stderr')}")


def _others(found: Results) -> None:
    base = _of(found, "part 0")
    for title in ("table", "passes 4"):
        for name, result in _of(found, title).items():
            print(f"{title}, {name}: {_shown(result)} in place of {_shown(base[name])}")
    for name, result in found.items():
        if name.startswith("cross"):
            print(f"{name}: {_shown(result)}, excess {_shown(result, 'excess', 'excess_stderr')}")
