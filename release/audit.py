"""What pip-audit found, and what it could not look up.

    pip-audit --format json ... | python -m release.audit

pip-audit says "No known vulnerabilities found" also where it could not ask.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any


def main() -> int:
  """Says it in a line for each package concerned, returns the exit status."""
  text = sys.stdin.read()
  status, lines = judged(json.loads(text) if text.strip() else None)
  print("\n".join(lines))
  return status


def judged(report: Mapping[str, Any] | None) -> tuple[int, list[str]]:
  """Exit status and lines of pip-audit's report; None where there is none."""
  packages = (report or {}).get("dependencies", [])
  asked = [x for x in packages if "skip_reason" not in x]
  if not asked:
    return 0, [
      "vulnerabilities: NOT CHECKED, the service that knows them could not be "
      f"asked about any of {len(packages)} packages"
    ]
  lines = [
    f"error: {x['name']} {x['version']}: {vulnerability['id']}, mended in "
    f"{', '.join(vulnerability['fix_versions']) or 'no version'}"
    for x in asked
    for vulnerability in x["vulns"]
  ]
  skipped = [x["name"] for x in packages if "skip_reason" in x]
  status = 1 if lines else 0
  lines.append(f"vulnerabilities: {len(asked)} packages checked")
  if skipped:
    lines.append(f"vulnerabilities: not checked: {', '.join(skipped)}")
  return status, lines


if __name__ == "__main__":
  sys.exit(main())
