"""Pages for people: they ask nothing of the network but this service."""

from typing import Any, NamedTuple

import jinja2

from rollingq_jax import __version__
from rollingq_jax.predict.load import Model
from rollingq_jax.predict.pictures import draw
from rollingq_jax.predict.service.options import Options
from rollingq_jax.predict.service.work import Answered

# Of each answer: no script but ours, and nothing from elsewhere.
HEADERS = {
  "content-security-policy": "default-src 'none'; connect-src 'self'; "
  "img-src 'self' data:; script-src 'self'; style-src 'self' 'unsafe-inline'; "
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-store",
}
# Classes that a card shows.
_MOST_CLASSES = 5


class Chance(NamedTuple):
  """A class on a card."""

  label: str
  probability: float


class Pages:
  """The pages of a service.

  Args:
    model: that answers.
    options: of the service.
  """

  def __init__(self, model: Model, options: Options):
    self._model, self._options = model, options
    self._environment = jinja2.Environment(
      loader=jinja2.ChoiceLoader(
        [
          jinja2.PackageLoader("rollingq_jax.predict"),
          jinja2.PackageLoader("rollingq_jax.report"),
        ]
      ),
      autoescape=jinja2.select_autoescape(("html.j2",), default=False),
      undefined=jinja2.StrictUndefined,
      trim_blocks=True,
      lstrip_blocks=True,
    )

  def page(self) -> str:
    """Where a person drops a clip."""
    return self._render(
      "page.html.j2",
      name=self._model.name,
      modalities=self._model.modalities,
      class_names=self._model.inputs.class_names,
      max_mb=self._options.max_bytes / 1e6,
    )

  def card(self, answered: Answered) -> str:
    """What is said of a clip, as a part of that page."""
    result, sample, row = answered
    chances = [Chance(*x) for x in (result.probabilities or {}).items()]
    chances.sort(key=lambda x: -x.probability)
    return self._render(
      "card.html.j2",
      result=result,
      chances=chances[:_MOST_CLASSES],
      more=max(0, len(chances) - _MOST_CLASSES),
      views=draw(self._model, sample, row.output, row.row),
    )

  def docs(self, schema: dict[str, Any]) -> str:
    """The OpenAPI description for people."""
    return self._render("docs.html.j2", schema=schema, name=self._model.name)

  def style(self) -> str:
    """CSS of all of them."""
    return self._render("page.css")

  def script(self) -> str:
    """JavaScript of the first one."""
    return self._render("page.js")

  def _render(self, template: str, **context: Any) -> str:
    return self._environment.get_template(template).render(
      version=__version__, **context
    )
