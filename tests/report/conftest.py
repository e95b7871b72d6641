"""Folders of runs and studies, written by hand."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MODALITIES = ("audio", "visual")
TOKENS = {"audio": 14, "visual": 16}
LEVELS = (0.25, 0.5, 1.0)


def _dump(path: Path, content: Any) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(content))


def _dump_lines(path: Path, lines: list[dict]) -> None:
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _config(method: str, seed: int) -> dict:
  return {
    "seed": seed,
    "modalities": list(MODALITIES),
    "task": "classification",
    "data": {"name": "av_digits", "noise": "sensor_failure", "splits": None},
    "model": {"fusion": "concat" if method == "concat" else "attention"},
    "evaluation": {"checkpoint": "last", "selection_split": "validation"},
    "rollingq": {"enabled": method == "rollingq", "beta": 0.2},
    "balance": {"name": "none"},
  }


def _line(epoch: int, split: str, score: float, attends: bool) -> dict:
  line = {"step": 10 * epoch + 10, "epoch": epoch, "split": split}
  line |= {"loss": 2 - 0.1 * epoch, "accuracy": score, "macro_f1": score}
  if split != "train":
    line |= {f"probe/{x}": 0.3 for x in MODALITIES}
    own = {"token_share/audio": 0.25, "token_share/visual": 0.75}
    line |= own if attends else {}
  else:
    line |= {f"gradient_norm/{x}": 1 / (epoch + 1) for x in MODALITIES}
  if attends:
    line |= {"air/audio": 0.5, "air/visual": -0.5, "correlation/audio": 0.7}
    line |= {"share/audio": 0.6, "share/visual": 0.4, "share_std/audio": 0.1}
  return line


def _window(epoch: int, rolled: bool) -> dict:
  return {
    "step": 10 * epoch + 10,
    "epoch": epoch,
    "layer": "fusion",
    "air": {"audio": [0.5], "visual": [-0.5]},
    "angle": [1.25 if rolled else 0.0],
    "rolled": [rolled],
    "share": {"audio": 0.6, "visual": 0.4},
  }


def write_run(
  folder: Path, method: str = "rollingq", seed: int = 0, epochs: int = 4
) -> Path:
  """A run of two modalities, without analysis/."""
  score = {"concat": 0.75, "attention": 0.7}.get(method, 0.8) + 0.01 * seed
  attends = method != "concat"
  lines = [
    _line(epoch, split, score * (epoch + 1) / epochs, attends)
    for epoch in range(epochs)
    for split in ("train", "validation")
  ]
  lines.append(_line(epochs - 1, "test", score, attends))
  for name in MODALITIES:
    for level in LEVELS:
      line = _line(epochs - 1, "test", score - level / 4, attends)
      lines.append(line | {f"extra_noise/{name}": level})
  _dump(folder / "config.json", _config(method, seed))
  cost = {"trained": 159902, "batch": 64}
  cost |= {"forward_flops": 3.5e8, "train_flops": 9.5e8}
  _dump(folder / "cost.json", cost)
  _dump_lines(folder / "metrics.jsonl", lines)
  windows = [
    _window(epoch, method == "rollingq" and epoch == 2)
    for epoch in range(epochs if attends else 0)
  ]
  _dump_lines(folder / "rollingq.jsonl", windows)
  _dump_lines(
    folder / "environment.jsonl",
    [{"python": "3.11.7", "jax": f"0.10.{seed}", "devices": "1 x cpu"}],
  )
  return folder


def _polar(rng: np.random.Generator, spread: float) -> dict:
  polar = {
    name: {
      "angle": rng.normal(centre, 0.3, 80).tolist(),
      "radius": rng.gamma(9, 0.1, 80).tolist(),
    }
    for name, centre in zip(MODALITIES, (spread, -spread), strict=True)
  }
  return polar | {"query": {"angle": spread, "radius": 1.0}}


def _geometry(rng: np.random.Generator) -> dict:
  edges = np.linspace(-1, 1, 21)
  counts = {x: rng.multinomial(100, [0.05] * 20).tolist() for x in MODALITIES}
  layer = {
    "name": "fusion",
    "head": 0,
    "modalities": list(MODALITIES),
    "query_norm": 1.5,
    "anchor_angle": 0.4,
    "key_gap": None,
    "key_gap_why": "a mean key is zero",
    "cosine_histogram": {"edges": edges.tolist(), "counts": counts},
    "polar": _polar(rng, 0.5),
  }
  return {"layers": [layer]}


def _rows(rng: np.random.Generator) -> dict[str, list[dict]]:
  noisy = [
    {"modality": x, "level": y, "accuracy": 0.8 - y / 3, "macro_f1": 0.7}
    for x in MODALITIES
    for y in LEVELS
  ]
  plain = {"modality": None, "level": 0.0, "accuracy": 0.8, "macro_f1": 0.8}
  correlation = {"modality": "audio", "pearson": 0.5, "pearson_low": 0.4}
  correlation |= {"pearson_high": 0.6, "spearman": None}
  why = "attention share does not vary"
  correlation |= {"spearman_why": why, "spearman_low": None}
  return {
    "robustness": [plain, *noisy],
    "replacement": [
      {"modality": x, "by": y, "accuracy": 0.3 + 0.3 * rng.random()}
      for x in MODALITIES
      for y in ("noise", "zeros", "other_sample", "missing")
    ],
    "correlation": [correlation | {"spearman_high": None}],
    "ood": [
      {"score": x, "against": "noise", "auroc": 0.8, "aupr": 0.7, "fpr95": 0.4}
      for x in ("max_softmax", "energy", "attention_entropy")
    ],
  }


def _of_tokens() -> dict[str, dict[str, list[dict]]]:
  """What a protocol adds that hits part of the modalities."""
  tokens = []
  for name, value in (("audio", 0.25), ("all", 1.0)):
    row = {"modality": name, "samples": 480, "pearson": None}
    for key, x in (("corrupted_attention", value), ("spearman", 0.4)):
      row |= {key: x, f"{key}_low": x - 0.1, f"{key}_high": x + 0.1}
    tokens.append(row | {"pearson_why": "attention does not vary"})
  shares = [{"share": x, "accuracy": 0.8 - x / 2} for x in (0.0, 0.25, 0.5)]
  return {"robustness": {"shares": shares}, "correlation": {"tokens": tokens}}


def _classes(rng: np.random.Generator) -> dict:
  confusion = rng.multinomial(50, [0.01] * 10, 10) + 40 * np.eye(10, dtype=int)
  shares = np.diag(confusion) / confusion.sum(1)
  return {
    "class_names": [str(i) for i in range(10)],
    "confusion": confusion.tolist(),
    "accuracy": shares.tolist(),
  }


def _calibration() -> dict:
  bins = [
    {
      "low": i / 10,
      "high": (i + 1) / 10,
      "count": 10 * i,
      "confidence": (i + 0.5) / 10,
      "accuracy": math.sqrt((i + 0.5) / 10),
    }
    for i in range(10)
  ]
  return {"ece": 0.125, "bins": bins}


def _browser(folder: Path, rng: np.random.Generator, count: int) -> None:
  y, x = np.mgrid[:28, :28]
  circle = np.abs(np.hypot(y - 14, x - 14) - 8) < 2
  images = np.repeat((255 * circle)[None, None, ..., None], count, 0)
  attention = {x: rng.dirichlet([0.5] * n) for x, n in TOKENS.items()}
  arrays = {
    "audio": rng.normal(size=(count, 28, 13)).astype(np.float32),
    "visual": images.astype(np.uint8),
    "audio_attention": np.stack([0.6 * attention["audio"]] * count),
    "visual_attention": np.stack([0.4 * attention["visual"]] * count),
  }
  np.savez(folder / "browser.npz", **arrays)
  samples = [
    {
      "row": 7 * i,
      "label": i % 10,
      "prediction": i % 10 if i % 3 else 1,
      "probability": 0.9,
      "without": {x: {"prediction": 3, "probability": 0.4} for x in MODALITIES},
      "share": {"audio": 0.6, "visual": 0.4},
    }
    for i in range(count)
  ]
  modalities = {
    "audio": {"kind": "sequence", "tokens": [1, 14]},
    "visual": {"kind": "image", "tokens": [1, 4, 4]},
  }
  names = [str(i) for i in range(10)]
  content = {"samples": samples, "class_names": names, "modalities": modalities}
  _dump(folder / "browser.json", content)


def write_analysis(
  run: Path, seed: int = 0, samples: int = 6, in_part: bool = False
) -> None:
  """Each file of analysis/, and geometry.jsonl."""
  rng, folder = np.random.default_rng(seed), run / "analysis"
  contents: dict[str, dict] = {k: {"rows": x} for k, x in _rows(rng).items()}
  contents["geometry"] = _geometry(rng)
  contents["classes"] = _classes(rng)
  contents["calibration"] = _calibration()
  for kind, content in _of_tokens().items():
    contents[kind] |= content if in_part else {}
  contents["timing"] = {"step_ms": 12.5, "forward_ms": 4.25, "batch": 64}
  for kind, content in contents.items():
    facts = {"kind": kind, "split": "test", "samples": 500}
    _dump(folder / f"{kind}.json", facts | content)
  _browser(folder, rng, samples)
  pictures = [
    {"step": 30, "rotation": 1, "when": when, "layer": "fusion"}
    | {"polar": _polar(rng, spread)}
    for when, spread in (("before", 0.8), ("after", 0.2))
  ]
  _dump_lines(run / "geometry.jsonl", pictures)


def _pair(method: str, against: str, mean: float, seeds: int) -> dict:
  entry = {"metric": "accuracy", "method": method, "against": against}
  entry |= {"n": seeds, "mean": mean, "wins": seeds, "losses": 0, "ties": 0}
  if seeds < 2:
    empty = ("standard_error", "low", "high", "t_p", "sign_p")
    return entry | dict.fromkeys(empty) | {"why": "one seed has no spread"}
  entry |= {"standard_error": 0.01, "low": mean - 0.03, "high": mean + 0.03}
  return entry | {"t_p": 0.02, "sign_p": 2.0 ** (1 - seeds), "why": None}


def _standard_error(values: list[float]) -> float | None:
  if len(values) < 2:
    return None
  return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def study_content(scores: dict[str, dict[int, dict[str, float]]]) -> dict:
  """study.json of test lines by method and seed."""
  seeds = list(next(iter(scores.values())))
  table: dict[str, dict] = {}
  for name in ("accuracy", "macro_f1", "air/audio", "share/audio"):
    for method, lines in scores.items():
      values = [line[name] for line in lines.values() if name in line]
      entry = {"values": dict(zip(map(str, lines), values, strict=False))}
      error = _standard_error(values)
      entry |= {"mean": float(np.mean(values)) if values else None}
      entry |= {"standard_error": error, "n": len(values)}
      table.setdefault(name, {})[method] = entry
  runs = [
    {"method": m, "seed": s, "folder": f"{m}/{s}", "status": "done"}
    | {"reason": None, "seconds": 60.0}
    for m in scores
    for s in seeds
  ]
  methods = [{"name": m, "variant": m, "options": []} for m in scores]
  others = [m for m in scores if m != "attention"]
  return {
    "config": "configs/av_digits.py",
    "methods": methods,
    "seeds": seeds,
    "control": [m for m in scores if m == "concat"],
    "vanilla": "attention",
    "settings_tried": 1,
    "selection": None,
    "runs": runs,
    "metrics": table,
    "paired": [
      _pair(m, "attention", 0.1 if m == "rollingq" else 0.01, len(seeds))
      for m in others
    ],
    "command": "python -m rollingq_jax.study --config configs/av_digits.py",
    "seconds": 754.0,
  }


def plain_test_line(run: Path) -> dict:
  """The plain test line of a run."""
  lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
  return next(line for line in lines if line["split"] == "test")


def write_study(folder: Path, methods: tuple[str, ...], seeds: int) -> Path:
  """Runs with their analyses, and study.json."""
  scores: dict[str, dict] = {}
  for method in methods:
    for seed in range(seeds):
      run = write_run(folder / method / str(seed), method, seed)
      write_analysis(run, seed)
      scores.setdefault(method, {})[seed] = plain_test_line(run)
  _dump(folder / "study.json", study_content(scores))
  return folder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
  """Writes a run; see `write_run`."""
  return lambda name="run", **given: write_run(tmp_path / name, **given)


@pytest.fixture
def make_analysis() -> Callable[..., None]:
  """Adds the files of an analysis; see `write_analysis`."""
  return write_analysis


@pytest.fixture(scope="session")
def study_writer() -> Callable[..., Path]:
  """`write_study` itself, for pages that several tests look at."""
  return write_study


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Path]:
  """Writes a study; see `write_study`."""

  def make(
    name: str = "demo",
    methods: tuple[str, ...] = ("concat", "attention", "rollingq"),
    seeds: int = 3,
  ) -> Path:
    return write_study(tmp_path / name, methods, seeds)

  return make
