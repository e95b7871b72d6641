"""The studies that docs/beyond.md is about, each by the study command.

    python -m benchmarks.studies --workdir DIR [--only NAME,...] [--data FOLDER]
      [--parallel N] [--write docs/study] [--config.path=value ...]

Stopped or killed at any moment, the same command goes on. FOLDER has what is
not shipped, by the paths of `FOLDERS`. With --write, the tables of each study
that is done become NAME.md there, and the values of its runs NAME.csv.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollingq_jax.condition import split_metric
from rollingq_jax.errors import UserError
from rollingq_jax.study.__main__ import main as run_study
from rollingq_jax.study.results import STUDY_FILE
from rollingq_jax.study.tables import write_page

# Where the files of a config's data are, below --data.
FOLDERS = {
  "av_mnist": "",
  "cremad_votes": "cremad",
  "mfeat": "uci_mfeat",
  "mmmo": "mfn_sequences",
  "mosi": "mosi",
}
FUSIONS = ("concat", "uniform", "attention", "rollingq1", "rollingq3")
# Each fusion without extras and with all of them; late has two of them by
# itself, and the third is its gate.
FACTORIAL = (
  *FUSIONS,
  "late",
  *(f"{name}+extras" for name in FUSIONS),
  "late+gate",
)
# What each extra brings, alone and with the others.
PARTS = tuple(
  f"{name}:{short}=fusion={name},rollingq=off,extras={extras}"
  for name in ("uniform", "attention")
  for short, extras in (
    ("loss", "loss"),
    ("residual", "loss+residual"),
    ("gated", "loss+gated"),
    ("gate", "loss,gate=on"),
    ("no_loss", "gated,gate=on"),
  )
)
EXTRAS = ("uniform+extras", "attention+extras")
# Modalities of training samples that are noise, or missing.
DROPOUTS = tuple(
  f"{name}:{short}={variant},--config.data.{field}=0.15"
  for name, variant in (
    ("uniform", "fusion=uniform"),
    ("late+gate", "fusion=late,extras=gated"),
    (
      "attention+extras",
      "fusion=attention,rollingq=off,extras=loss+gated,gate=on",
    ),
  )
  for short, field in (
    ("noise", "noise_dropout"),
    ("missing", "modality_dropout"),
  )
)
CONTROLS = ("concat", "uniform", "late", "uniform+extras")


class NamedStudy(NamedTuple):
  """Methods on one config."""

  # Of configs/, with variants.
  config: str
  modalities: tuple[str, ...]
  methods: tuple[str, ...] = FACTORIAL
  seeds: int = 5
  options: tuple[str, ...] = ()


def _digits(noise: str, **more: Any) -> NamedStudy:
  return NamedStudy(f"av_digits:noise={noise}", ("audio", "visual"), **more)


def _views(*names: str) -> NamedStudy:
  return NamedStudy(f"mfeat:modalities={'+'.join(names)}", names)


STUDIES = {
  "digits_sensor_failure": _digits("sensor_failure"),
  "digits_clean_train": _digits("clean_train"),
  # As many samples as the experiment had that found the extras.
  "digits_all_of_train": _digits(
    "sensor_failure",
    methods=(*FUSIONS[:3], *FUSIONS[4:], "late", *EXTRAS),
    options=("--config.data.train_on_validation=True",),
  ),
  "digits_parts": _digits(
    "clean_train", methods=("attention", "uniform", *PARTS)
  ),
  "digits_dropouts": _digits("clean_train", methods=DROPOUTS),
  "digits_burst": _digits("burst"),
  "digits_occlusion": _digits("occlusion"),
  "digits_desync": _digits("desync"),
  "digits_delayed_failure": _digits("delayed_failure"),
  "digits_two_layers": _digits(
    "burst",
    methods=(
      "uniform:2=fusion=uniform,layers=2,heads=4",
      "attention:2=fusion=attention,layers=2,heads=4,rollingq=off",
      "plane:2=fusion=attention,layers=2,heads=4,rollingq=on",
      "procrustes:2=fusion=attention,layers=2,heads=4,rollingq=on,"
      "--config.rollingq.method=procrustes",
    ),
  ),
  "av_mnist": NamedStudy("av_mnist", ("audio", "visual")),
  "av_mnist_disjoint": NamedStudy(
    "av_mnist:speakers=disjoint", ("audio", "visual")
  ),
  "votes": NamedStudy("cremad_votes", ("voice", "face")),
  "votes_dropouts": NamedStudy("cremad_votes", ("voice", "face"), DROPOUTS),
  "votes_disjoint": NamedStudy(
    "cremad_votes:actors=disjoint", ("voice", "face")
  ),
  "mosi": NamedStudy("mosi", ("text", "audio", "visual")),
  "mosi_dropouts": NamedStudy("mosi", ("text", "audio", "visual"), DROPOUTS),
  "mmmo": NamedStudy("mmmo", ("audio", "visual"), seeds=10),
  "mfeat_strong": _views("fac", "pix"),
  "mfeat_weak": _views("mor", "zer"),
  "mfeat_uneven": _views("fac", "mor"),
  "mfeat_three": _views("fou", "mor", "zer"),
  "mfeat_four": _views("fou", "kar", "mor", "zer"),
  "mfeat_five": _views("fou", "kar", "mor", "pix", "zer"),
  "mfeat_six": _views("fac", "fou", "kar", "mor", "pix", "zer"),
}
# Seeds of the README's studies are left alone.
FIRST_SEED = 20
NOISE_LEVELS = "--config.evaluation.noise_levels=(0.5,1.0)"


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the studies; 1 where a run failed."""
  args, options = _parser().parse_known_args(argv)
  names = [x for x in args.only.split(",") if x] or list(STUDIES)
  unknown = [x for x in names if x not in STUDIES]
  if unknown:
    sys.exit(f"--only: no study {unknown[0]!r}; known: {', '.join(STUDIES)}")
  status = 0
  for name in names:
    workdir = args.workdir / name
    words = arguments(STUDIES[name], args.data)
    words += [f"--workdir={workdir}", f"--parallel={args.parallel}", *options]
    print(f"study {name}", flush=True)
    failed = run_study(words)
    status = status or failed
    if args.write is not None and not failed:
      write(workdir, args.write, name)
  return status


def arguments(study: NamedStudy, data: Path | None) -> list[str]:
  """Those of the study command, but where and how it runs.

  Raises:
    UserError: its data are not shipped, and --data is not given.
  """
  config, _, variant = study.config.partition(":")
  spec = f"configs/{config}.py{':' if variant else ''}{variant}"
  methods = [f"unimodal:{name}" for name in study.modalities]
  methods = [*study.methods, *methods]
  controls = [name for name in CONTROLS if name in methods]
  words = [f"--config={spec}", f"--methods={','.join(methods)}"]
  words += [f"--controls={','.join(controls)}", f"--seeds={study.seeds}"]
  words += [f"--first_seed={FIRST_SEED}", NOISE_LEVELS, *study.options]
  if config in FOLDERS:
    if data is None:
      raise UserError(f"{config} is not shipped; name its folder by --data")
    words.append(f"--config.data.data_dir={data / FOLDERS[config]}")
  return words


def write(workdir: Path, folder: Path, name: str) -> None:
  """The tables of a study, and a line of values for each of its runs."""
  folder.mkdir(parents=True, exist_ok=True)
  study = json.loads((workdir / STUDY_FILE).read_text())
  command = f"python -m benchmarks.studies --only {name} --workdir runs/studies"
  page = write_page(study | {"command": command}, folder)
  page.replace(folder / f"{name}.md")
  with (folder / f"{name}.csv").open("w", newline="") as file:
    csv.writer(file, lineterminator="\n").writerows(values(study))


def values(study: dict[str, Any]) -> list[list[str]]:
  """A head, then for each run its metrics; "" where there is none.

  Args:
    study: contents of study.json.
  """
  names = [name for name in study["metrics"] if _is_kept(name)]
  rows = [["method", "seed", *names]]
  for method in study["methods"]:
    for seed in study["seeds"]:
      cells = [
        study["metrics"][name][method["name"]]["values"].get(str(seed))
        for name in names
      ]
      texts = ["" if x is None else f"{x:.5g}" for x in cells]
      rows.append([method["name"], str(seed), *texts])
  return rows


def _is_kept(metric: str) -> bool:
  kinds = ("accuracy", "macro_f1", "mae", "loss", "air", "share")
  kinds += ("correlation", "probe", "confidence", "gate")
  return split_metric(metric)[0].partition("/")[0] in kinds


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog="python -m benchmarks.studies")
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--only", default="", metavar="NAME,...")
  parser.add_argument("--data", type=Path, help="folder of what is not shipped")
  parser.add_argument("--parallel", type=int, default=1, metavar="N")
  parser.add_argument("--write", type=Path, help="folder of the tables")
  return parser


if __name__ == "__main__":
  sys.exit(main())
