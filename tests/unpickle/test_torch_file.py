"""Files of torch.save that hold one tensor alone."""

from pathlib import Path

import numpy as np
import pytest

from rollingq_jax.errors import UserError
from rollingq_jax.unpickle import read_tensor

FIXTURES = Path(__file__).parents[1] / "pretrained" / "fixtures"


def test_a_tensor_comes_back(tmp_path, write_tensor):
  matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
  found = read_tensor(write_tensor(tmp_path / "a.pt", matrix))
  np.testing.assert_array_equal(found, matrix, strict=True)
  assert not found.flags.writeable


def test_what_is_no_single_tensor_is_refused(tmp_path, write_tensor):
  path = write_tensor(tmp_path / "a.pt", np.zeros((30, 40)))
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  not_torch = tmp_path / "b.pt"
  not_torch.write_bytes(b"")
  state_dict = FIXTURES / "torch_checkpoint.pth"
  for wrong, words in (
    (path, "cut short"),
    (not_torch, "cut short"),
    (state_dict, "a dict; expected one tensor"),
    (FIXTURES / "augreg_vit.npz", "none of torch.save"),
  ):
    with pytest.raises(UserError, match=words) as caught:
      read_tensor(wrong)
    assert str(wrong) in str(caught.value)
