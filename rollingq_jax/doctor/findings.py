"""What a check found, and what becomes of a check that fails itself."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rollingq_jax.errors import UserError

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"
# From good to bad; a note is no fault.
STATUSES = (OK, NOTE, WARNING, ERROR)


class Finding(NamedTuple):
  """One line of the page."""

  # Of what was looked at; stays the same from version to version.
  name: str
  # One of STATUSES.
  status: str
  what: str
  # What to do about it; None where there is nothing to do.
  mend: str | None = None


Check = Callable[..., Sequence[Finding]]


def ok(name: str, what: str) -> Finding:
  """Nothing to do."""
  return Finding(name, OK, what)


def note(name: str, what: str) -> Finding:
  """What is not there, and may not be needed."""
  return Finding(name, NOTE, what)


def warning(name: str, what: str, mend: str) -> Finding:
  """A run works, but not as it could."""
  return Finding(name, WARNING, what, mend)


def error(name: str, what: str, mend: str) -> Finding:
  """A run would fail, or would not be what was asked for."""
  return Finding(name, ERROR, what, mend)


def worst(findings: Sequence[Finding]) -> str:
  """The status of all together: ok, warning or error."""
  faults = [f.status for f in findings if f.status != NOTE]
  return max(faults, key=STATUSES.index, default=OK)


def examine(name: str, check: Check, *args: object) -> list[Finding]:
  """What a check found; a check that fails is a finding too.

  Args:
    name: of the finding then.
    check: to be called.
    *args: of the check.
  """
  try:
    return list(check(*args))
  except UserError as failure:
    return [explained(name, failure)]
  # Whatever it is, the other checks go on.
  except Exception as failure:
    return [
      error(
        name,
        f"{type(failure).__name__}: {one_line(failure)}",
        "the check itself failed at this; a run is likely to fail at it too",
      )
    ]


def explained(name: str, failure: UserError) -> Finding:
  """The finding of a line that says what is wrong and how to mend it."""
  what, mend = _parts(one_line(failure))
  return Finding(name, ERROR, what, mend)


def noted(name: str, line: str) -> Finding:
  """The warning of a line that says what could be better, and how."""
  return Finding(name, WARNING, *_parts(line))


def _parts(line: str) -> tuple[str, str | None]:
  what, _, mend = line.partition("; ")
  return what, mend or None


def one_line(failure: BaseException) -> str:
  """The message without its line breaks, cut where it is very long."""
  text = " ".join(str(failure).split())
  return text if len(text) <= 400 else f"{text[:400]}..."
