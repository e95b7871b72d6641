"""What the service's description says of requests and answers."""

from typing import Any

from pydantic import BaseModel, Field


class Answer(BaseModel):
  """A prediction. Classes have a probability, a regression has a value."""

  clip: str = Field(description="always clip")
  label: str | None = Field(None, description="name of the class")
  probability: float | None = Field(None, description="of that class, 0 to 1")
  probabilities: dict[str, float] | None = Field(
    None, description="of all classes"
  )
  value: float | None = Field(None, description="the number, in a regression")
  attention_share: dict[str, float] | None = Field(
    None, description="share of each modality, where the fusion has attention"
  )
  warnings: list[str] = Field(
    description="silent sound, black frames, a missing modality"
  )


class Problem(BaseModel):
  """Why there is no prediction."""

  detail: str = Field(description="what is wrong, for people")


class Health(BaseModel):
  """What answers, and whether it does."""

  status: str = Field(description="ok, or failed")
  model: str = Field(description="name of the model's folder")
  modalities: list[str] = Field(description="that a clip may have")
  class_names: list[str] = Field(description="none in a regression")


# By status.
PROBLEMS: dict[int | str, dict[str, Any]] = {
  status: {"model": Problem, "description": text}
  for status, text in {
    400: "the form is malformed",
    408: "the upload is too slow",
    413: "the upload is too large",
    415: "the body is no multipart form",
    422: "the files cannot be used",
    503: "too much to do; the header Retry-After says when to try again",
  }.items()
}


def request_body(files: list[str], texts: list[str]) -> dict[str, Any]:
  """The form that an upload is."""
  binary = {"type": "string", "format": "binary"}
  said = {
    "clip": "a whole clip: a video, sound, an image, or .npz of features; "
    "alone",
    "audio": "sound, a video with sound, or .npy of features",
    "visual": "a video, an image, or .npy of features",
  }
  properties = {name: binary | {"description": said[name]} for name in files}
  properties |= {
    name: {"type": "string", "description": "the transcript"} for name in texts
  }
  return {
    "requestBody": {
      "required": True,
      "content": {
        "multipart/form-data": {
          "schema": {"type": "object", "properties": properties}
        }
      },
    }
  }
