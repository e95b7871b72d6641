"""Connections by which several processes know at once that one has ended.

The system closes a connection with its process, however that ends. JAX waits
for heartbeats that do not come, and then ends the process with a stack trace.
Every process keeps one to process 0. They carry a greeting and a farewell;
where a firewall lets none through, JAX's heartbeats remain.
"""

import contextlib
import secrets
import selectors
import socket
from typing import Any

KEY = "rollingq_jax/presence"
TOKEN_BYTES = 16
# Token in hexadecimal digits, then the process.
GREETING_BYTES = 2 * TOKEN_BYTES + 8
FAREWELL = b"."
STORE_MILLISECONDS = 60_000
ANSWER_SECONDS = 10
# When a host that vanished, and closed nothing, is taken for dead: before
# JAX's heartbeats are missed.
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 4, "TCP_KEEPCNT": 3}


class Presence:
  """The connections of one process.

  Args:
    state: `jax._src.distributed.global_state`, or what has its client,
      coordinator_address and process_id.
  """

  def __init__(self, state: Any):
    self._selector = selectors.DefaultSelector()
    # Processes by their connections.
    self._lines: dict[socket.socket, int] = {}
    self._token = ""
    self._listener: socket.socket | None = None
    if state.process_id == 0:
      self._listen(state)
      return
    # The latter where the store does not answer.
    with contextlib.suppress(OSError, RuntimeError):
      self._call(state)

  def next_gone(self) -> int:
    """Blocks until a process is gone without a farewell; returns which."""
    while True:
      for ready, _ in self._selector.select():
        if ready.data is None:
          self._welcome()
        elif not self._has_farewell(ready.data):
          return self._lines[ready.data]

  def say_farewell(self) -> None:
    """Tells the others that this process ends as it should."""
    # A copy: others may say theirs meanwhile.
    for line in list(self._lines):
      with contextlib.suppress(OSError):
        line.sendall(FAREWELL)

  def _listen(self, state: Any) -> None:
    both = socket.has_dualstack_ipv6()
    self._listener = socket.create_server(
      ("", 0),
      family=socket.AF_INET6 if both else socket.AF_INET,
      backlog=1024,
      dualstack_ipv6=both,
    )
    self._token = secrets.token_hex(TOKEN_BYTES)
    port = self._listener.getsockname()[1]
    state.client.key_value_set(KEY, f"{port} {self._token}")
    self._selector.register(self._listener, selectors.EVENT_READ)

  def _call(self, state: Any) -> None:
    found = state.client.blocking_key_value_get(KEY, STORE_MILLISECONDS)
    port, token = found.split()
    host = str(state.coordinator_address).rpartition(":")[0].strip("[]")
    line = socket.create_connection((host, int(port)), ANSWER_SECONDS)
    line.sendall(f"{token}{state.process_id:08d}".encode())
    self._keep(line, 0)

  def _welcome(self) -> None:
    """Takes what calls, if it knows the token."""
    assert self._listener is not None
    line, _ = self._listener.accept()
    line.settimeout(ANSWER_SECONDS)
    with contextlib.suppress(OSError):
      greeting = _receive(line, GREETING_BYTES)
      if secrets.compare_digest(greeting[:-8], self._token.encode()):
        self._keep(line, int(greeting[-8:]))
        return
    line.close()

  def _keep(self, line: socket.socket, process: int) -> None:
    line.setblocking(False)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
      if hasattr(socket, name):
        line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    self._lines[line] = process
    self._selector.register(line, selectors.EVENT_READ, line)

  def _has_farewell(self, line: socket.socket) -> bool:
    """Whether a connection that ends was taken leave of."""
    self._selector.unregister(line)
    try:
      return line.recv(1) == FAREWELL
    except OSError:
      return False


def _receive(line: socket.socket, count: int) -> bytes:
  """So many bytes, or fewer where it ends; what follows may be a farewell."""
  received = b""
  while len(received) < count:
    some = line.recv(count - len(received))
    if not some:
      break
    received += some
  return received
