"""What happens to a run whose process, disk or checkpoints fail.

    python -m benchmarks.faults --workdir DIR [--write docs/faults.md]

Real processes of `python -m rollingq_jax.main`, small runs on av_digits. After
each failure the same command is given again, to the end, and the files of that
run are compared, byte by byte, with those of a run that nothing disturbed.
Needs Linux; where no tmpfs may be mounted, or `faketime` is not installed, the
rows that need it say so.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.fault_runs import (
  Bench,
  epochs,
  free_port,
  is_saving,
  newest,
  resumed,
  wait_until,
)

KILLS, STOPS = 20, 5
# Of these kills, as many while a checkpoint is written and at the start.
AT_SAVES, AT_STARTS = 9, 4
HEAD = (
  "failure",
  "moment",
  "exit status",
  "seconds until it ended",
  "newest checkpoint then",
  "resumed after step",
  "final files as unbroken",
)
NOT_HERE = "not possible here"


class Row(NamedTuple):
  """One failure; in the order of HEAD."""

  failure: str
  moment: str
  status: str = ""
  seconds: str = ""
  checkpoint: str = ""
  resumed: str = ""
  same: str = ""


def killed(bench: Bench, moments: random.Random) -> Iterator[Row]:
  """SIGKILL at 20 moments; runs that are killed again when they go on."""
  kinds = ["save"] * AT_SAVES + ["start"] * AT_STARTS
  kinds += ["training"] * (KILLS - len(kinds))
  moments.shuffle(kinds)
  for number, group in enumerate(kinds[i : i + 4] for i in range(0, KILLS, 4)):
    workdir = bench.folder / f"killed{number}"
    rows = [_kill(bench, workdir, kind, moments) for kind in group]
    yield from _with_end(bench, workdir, rows)


def _kill(
  bench: Bench, workdir: Path, kind: str, moments: random.Random
) -> Row:
  name = str(len(list(bench.output(workdir).parent.glob(f"{workdir.name}.*"))))
  process = bench.start(workdir, name=name)
  begun = epochs(workdir)
  if kind == "start":
    time.sleep(moments.uniform(0, 8))
    moment = "within 8 s of its start"
  elif kind == "save":
    wait_until(lambda: epochs(workdir) > begun, process)
    wait_until(lambda: is_saving(workdir), process, 0.001)
    time.sleep(moments.uniform(0, 0.15))
    moment = "while a checkpoint is written" if is_saving(workdir) else (
      "just after a checkpoint was written"
    )  # fmt: skip
  else:
    wait_until(lambda: epochs(workdir) > begun, process)
    time.sleep(moments.uniform(0, 1.0))
    moment = f"in epoch {epochs(workdir) + 1}"
  there = newest(workdir)
  process.send_signal(signal.SIGKILL)
  ended = bench.end(process, workdir, name)
  return Row(
    "kill -9", moment, str(ended.status), f"{ended.seconds:.1f}", there
  )


def stopped(bench: Bench, moments: random.Random) -> Iterator[Row]:
  """SIGTERM at 5 moments of one run."""
  workdir = bench.folder / "stopped"
  rows = []
  for number in range(STOPS):
    process = bench.start(workdir, name=f"{number}")
    begun = epochs(workdir)
    wait_until(lambda n=begun: epochs(workdir) > n, process)
    time.sleep(moments.uniform(0, 0.8))
    moment = f"in epoch {epochs(workdir) + 1}"
    process.send_signal(signal.SIGTERM)
    ended = bench.end(process, workdir, f"{number}")
    rows.append(
      Row(
        "SIGTERM",
        moment,
        str(ended.status),
        f"{ended.seconds:.1f}",
        newest(workdir),
      )
    )
  yield from _with_end(bench, workdir, rows)


def _with_end(
  bench: Bench, workdir: Path, rows: Sequence[Row]
) -> Iterator[Row]:
  """Goes on to the end; where each part went on, the next one's output says."""
  last, same = bench.go_on(workdir)
  outputs = [bench.output(workdir, f"{i}") for i in range(1, len(rows))]
  steps = [last]
  for output in reversed(outputs):
    text = output.read_text()
    # One that ended before it said anything left all as it was.
    steps.append(resumed(text) if "data: " in text else steps[-1])
  for row, step in zip(rows, reversed(steps), strict=True):
    yield row._replace(resumed=step, same=same)


def one_of_two(bench: Bench, moments: random.Random) -> Iterator[Row]:
  """One of two processes is killed or stopped; the row is the other's."""
  for number, (what, index) in enumerate(
    [("kill -9", 1), ("kill -9", 0), ("SIGTERM", 1)]
  ):
    workdir = bench.folder / f"two{number}"
    port = free_port()
    several = f"--coordinator=127.0.0.1:{port}", "--num_processes=2"
    both = [
      bench.start(workdir, *several, f"--process_id={i}", name=f"{i}")
      for i in range(2)
    ]
    wait_until(lambda w=workdir: epochs(w) >= 2, both[0])
    time.sleep(moments.uniform(0, 0.5))
    there = newest(workdir)
    both[index].send_signal(
      signal.SIGKILL if what == "kill -9" else signal.SIGTERM
    )
    ended = bench.end(both[1 - index], workdir, f"{1 - index}")
    both[index].wait()
    if what == "SIGTERM":
      there = newest(workdir)
    yield Row(
      f"{what} of process {index} of two",
      "in epoch 3; the other process",
      str(ended.status),
      f"{ended.seconds:.1f}",
      there,
      *_on_one(bench, workdir),
    )


def _on_one(bench: Bench, workdir: Path) -> tuple[str, str]:
  """Goes on with one process: other sums, so only the step is compared."""
  step, _ = bench.go_on(workdir)
  return step, "not compared: two processes, then one"


def disks(bench: Bench, moments: random.Random) -> Iterator[Row]:
  """A disk that is full, one that is read-only."""
  for kilobytes in (300, 1700, 2500):
    yield _on_disk(bench, f"full{kilobytes}", kilobytes)
  yield _on_disk(bench, "readonly", 20000, is_read_only=True)


def _on_disk(
  bench: Bench, name: str, kilobytes: int, is_read_only: bool = False
) -> Row:
  mount = bench.folder / name
  mount.mkdir()
  what = "read-only workdir" if is_read_only else "disk full"
  moment = "after epoch 2" if is_read_only else f"tmpfs of {kilobytes} kB"
  if not _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", mount):
    return Row(what, NOT_HERE)
  workdir = mount / "run"
  try:
    if is_read_only:
      process = bench.start(workdir)
      wait_until(lambda: epochs(workdir) >= 2, process)
      process.terminate()
      process.wait()
      _mount("-o", "remount,ro", mount)
    ended = bench.end(bench.start(workdir), workdir)
    there = newest(workdir)
    _mount("-o", "remount,rw,size=20000k", mount)
    step, same = bench.go_on(workdir)
  finally:
    subprocess.run(["umount", str(mount)], check=False)
  return Row(
    what,
    moment,
    f"{ended.status}: {ended.line}".replace(str(bench.folder), "DIR"),
    f"{ended.seconds:.1f}",
    there,
    step,
    same,
  )


def _mount(*arguments: str | Path) -> bool:
  command = ["mount", *map(str, arguments)]
  with contextlib.suppress(FileNotFoundError):
    return not subprocess.run(command, capture_output=True).returncode
  return False


def damaged(bench: Bench, moments: random.Random) -> Iterator[Row]:
  """The newest checkpoint cut in half; a file of it deleted; clock moved."""
  partial = bench.folder / "partial"
  process = bench.start(partial)
  wait_until(lambda: epochs(partial) >= 4, process)
  process.send_signal(signal.SIGKILL)
  process.wait()
  for what, damage in (
    ("newest checkpoint truncated", _truncate),
    ("array file of the newest checkpoint deleted", _delete_array),
    ("_METADATA of the newest checkpoint deleted", _delete_metadata),
    ("files' times moved two days ahead", _move_times),
  ):
    workdir = bench.folder / what.split()[0].strip("_'").lower()
    shutil.copytree(partial, workdir)
    there = newest(workdir)
    damage(workdir)
    step, same = bench.go_on(workdir)
    yield Row(what, "before it goes on", "", "", there, step, same)
  yield _earlier(bench, partial)


def _earlier(bench: Bench, partial: Path) -> Row:
  """Goes on with a clock that is set back by a day."""
  workdir = bench.folder / "earlier"
  shutil.copytree(partial, workdir)
  row = Row("clock set back by a day", "before it goes on")
  if shutil.which("faketime") is None:
    return row._replace(same=NOT_HERE)
  process = bench.start(workdir, before=("faketime", "-f", "-1d"))
  ended = bench.end(process, workdir)
  return row._replace(
    status=str(ended.status),
    checkpoint=newest(partial),
    resumed=resumed(ended.output),
    same=bench.is_same(workdir),
  )


def _checkpoint(workdir: Path) -> Path:
  return workdir / "checkpoints" / newest(workdir)


def _truncate(workdir: Path) -> None:
  for file in _checkpoint(workdir).rglob("*"):
    if file.is_file():
      os.truncate(file, file.stat().st_size // 2)


def _delete_array(workdir: Path) -> None:
  arrays = (_checkpoint(workdir) / "state" / "d").iterdir()
  max(arrays, key=lambda file: file.stat().st_size).unlink()


def _delete_metadata(workdir: Path) -> None:
  (_checkpoint(workdir) / "state" / "_METADATA").unlink()


def _move_times(workdir: Path) -> None:
  ahead = time.time() + 2 * 86400
  for path in workdir.rglob("*"):
    os.utime(path, (ahead, ahead))


def second(bench: Bench, moments: random.Random) -> Iterator[Row]:
  """A second run on a workdir whose run goes on."""
  workdir = bench.folder / "second"
  first = bench.start(workdir, name="first")
  wait_until(lambda: epochs(workdir) >= 1, first)
  ended = bench.end(bench.start(workdir), workdir)
  bench.finish(first)
  yield Row(
    "second run on one workdir",
    "in epoch 2 of the first",
    f"{ended.status}: {ended.line}".replace(str(bench.folder), "DIR"),
    f"{ended.seconds:.1f}",
    "",
    "",
    bench.is_same(workdir),
  )


def table(rows: Sequence[Row]) -> str:
  """In Markdown."""
  lines = [HEAD, ["---"] * len(HEAD), *rows]
  return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main() -> None:
  """Runs all; prints the rows as they come."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--write", type=Path, help="page whose table it replaces")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument(
    "--only",
    help="kinds, joined by commas; the page's other rows stay",
    default=",".join(KINDS),
  )
  args = parser.parse_args()
  kinds = args.only.split(",")
  if unknown := [name for name in kinds if name not in KINDS]:
    parser.error(f"--only: no {unknown[0]!r}; known: {', '.join(KINDS)}")
  args.workdir.mkdir(parents=True, exist_ok=True)
  if any(args.workdir.iterdir()):
    parser.error(
      f"--workdir {args.workdir} is not empty; choose another folder"
    )
  moments, rows = random.Random(args.seed), []
  bench = Bench(args.workdir.absolute())
  for name in kinds:
    for row in KINDS[name](bench, moments):
      print("|", " | ".join(row), flush=True)
      rows.append(row)
  if args.write:
    write(args.write, rows)


KINDS: dict[str, Callable[[Bench, random.Random], Iterator[Row]]] = {
  "second": second,
  "damaged": damaged,
  "disks": disks,
  "one_of_two": one_of_two,
  "stopped": stopped,
  "killed": killed,
}


def write(page: Path, rows: Sequence[Row]) -> None:
  """Replaces the rows of these failures between the page's two marks."""
  before, first, rest = page.read_text().partition("<!-- table: faults -->\n")
  there, last, after = rest.partition("<!-- end -->\n")
  new = {row.failure for row in rows}
  read = [Row(*x.strip("| ").split(" | ")) for x in there.splitlines()[2:]]
  kept = [row for row in read if row.failure not in new]
  page.write_text(before + first + table([*kept, *rows]) + last + after)


if __name__ == "__main__":
  main()
