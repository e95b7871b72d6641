"""Tables in pages, between marks that name them."""

import re

from rollingq_jax.errors import UserError


def fill(text: str, made: dict[str, str], *, partial: bool = False) -> str:
  """The page with the tables that it has marks for.

  Args:
    text: of the page.
    made: tables by their names.
    partial: whether a table that is not among these stays as it is.

  Raises:
    UserError: marks of a table that there is not.
  """

  def table(match: re.Match[str]) -> str:
    begin, name, end = match.groups()
    if name not in made and partial:
      return match.group()
    if name not in made:
      raise UserError(
        f"there is no table {name!r}; the page may have {', '.join(made)}"
      )
    return f"{begin}{made[name]}\n{end}"

  pattern = r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)"
  return re.sub(pattern, table, text, flags=re.DOTALL)
