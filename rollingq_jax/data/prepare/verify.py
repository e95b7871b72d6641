"""Checks records against what was written beside them."""

from pathlib import Path

from rollingq_jax.data.records import (
  INDEX_FILE,
  REPORT_FILE,
  entries_of,
  open_records,
  read_index,
  read_report,
)


def verify_records(folder: Path) -> list[str]:
  """Reads every record; what is wrong, in lines."""
  index = read_index(folder)
  report = read_report(folder)
  found = {
    split: list(entries_of(source))
    for split, source in open_records(folder).items()
  }
  wrong = [
    f"{split}: record {expected.id} is not what was written"
    for split, entries in index.items()
    for expected, entry in zip(entries, found.get(split, []), strict=False)
    if entry != expected
  ]
  for split, entries in index.items():
    counts = (
      len(found.get(split, [])),
      len(entries),
      report["clips"].get(split, {}).get("total", 0),
    )
    if len(set(counts)) > 1:
      wrong.append(
        f"{split}: {counts[0]} records, {counts[1]} in {INDEX_FILE}, "
        f"{counts[2]} in {REPORT_FILE}"
      )
  return wrong
