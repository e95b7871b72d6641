"""What a user can mend: one line instead of a traceback."""


class UserError(ValueError):
  """Wrong input, config or environment.

  The message is one line that says what is wrong, where, what was expected
  and how to mend it. Commands print it and exit with status 2.
  """
