"""What a user can mend: one line instead of a traceback."""


class UserError(ValueError):
  """Wrong input, config or environment.

  The message is one line that says what is wrong, where, what was expected
  and how to mend it. Commands print it and exit with status 2.
  """


class MissingPackageError(UserError):
  """An optional package is not installed: nothing is wrong with any input."""


def install_line(extra: str) -> str:
  """The command that installs an extra; the package itself is on no index."""
  return f"pip install -e '.[{extra}]' in the clone of rollingq_jax"


def first_line(error: BaseException) -> str:
  """What an error of a library says, as part of a line; its kind if nothing."""
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
