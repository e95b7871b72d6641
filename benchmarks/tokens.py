"""How much attention goes to corrupted tokens, in the runs of a study.

    python -m benchmarks.tokens --workdir runs/studies --only NAME,... \
      [--write docs/study/tokens]

For studies of `benchmarks.studies` whose noise hits parts of a modality; their
runs are analysed where they are not yet.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies import FIRST_SEED, STUDIES
from rollingq_jax.analyse import main as analyse
from rollingq_jax.errors import UserError
from rollingq_jax.study.methods import folder_name

METHODS = ("uniform", "attention", "rollingq1", "rollingq3", "attention+extras")
HEAD = ("method", "seed", "tokens", "corrupted_attention")


def main(argv: Sequence[str] | None = None) -> int:
  """Writes NAME.csv for each study, a line for each run and modality."""
  parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens")
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--only", required=True, metavar="NAME,...")
  parser.add_argument("--write", type=Path, default=Path("docs/study/tokens"))
  args = parser.parse_args(argv)
  args.write.mkdir(parents=True, exist_ok=True)
  for name in args.only.split(","):
    rows = [HEAD, *_rows(args.workdir / name, STUDIES[name].seeds)]
    with (args.write / f"{name}.csv").open("w", newline="") as file:
      csv.writer(file, lineterminator="\n").writerows(rows)
  return 0


def _rows(workdir: Path, num_seeds: int) -> list[tuple[str, ...]]:
  rows = []
  for method in METHODS:
    for seed in range(FIRST_SEED, FIRST_SEED + num_seeds):
      for entry in _tokens(workdir / folder_name(method) / str(seed)):
        value = entry["corrupted_attention"]
        # A picture of one frame cannot be out of step with itself.
        if value is not None:
          row = (method, str(seed), entry["modality"], f"{value:.5g}")
          rows.append(row)
  return rows


def _tokens(run: Path) -> list[dict[str, Any]]:
  """What the analysis of a run says of its tokens, by modality and of all.

  Raises:
    UserError: a run that cannot be analysed.
  """
  path = run / "analysis" / "correlation.json"
  if not path.exists() and analyse([f"--workdir={run}", "--only=correlation"]):
    raise UserError(f"the run in {run} cannot be analysed")
  return json.loads(path.read_text())["tokens"]


if __name__ == "__main__":
  sys.exit(main())
