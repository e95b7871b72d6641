"""Under which terms the media of each data set are given out."""

_DIGITS = (
  "FSDD: CC BY-SA 4.0 (Z. Jackson et al.); MNIST: CC BY-SA 3.0 (Y. LeCun, C. "
  "Cortes, C. Burges)"
)
_CREMAD = "ODbL 1.0, contents DbCL 1.0"
_RESEARCH = "research use; copies are not to be given on"

# By `config.data.name`; docs/data.md has the sources.
LICENCES = {
  "av_digits": _DIGITS,
  "av_mnist": _DIGITS,
  "cremad": _CREMAD,
  "cremad_votes": _CREMAD,
  "kinetics_sound": "annotations CC BY 4.0; the videos are their uploaders'",
  "manifest": "not recorded; the clips are those of whoever trained the model",
  "mfeat": "CC BY 4.0",
  "mmmo": _RESEARCH,
  "mosei": _RESEARCH,
  "mosei_text": _RESEARCH,
  "mosi": _RESEARCH,
  "synthetic": "none: random numbers",
}


def licence_of(name: str) -> str:
  """Of a data set by the name in the config; one of TFDS has its own."""
  return LICENCES.get(name, f"that of the data set {name}")
