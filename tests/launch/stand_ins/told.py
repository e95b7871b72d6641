"""A process that says how it was called, then does what it is told."""

import os
import signal
import sys
import time

index = next(x for x in sys.argv if x.startswith("--process_id=")).split("=")[1]
told = dict(
  x.split("=") for x in sys.argv if "=" in x and not x.startswith("--")
)


def stop(number: int, frame: object) -> None:
  del frame
  print(f"stopped by {signal.Signals(number).name}")
  if "stubborn" not in told:
    sys.exit(0)


for number in (signal.SIGTERM, signal.SIGINT):
  signal.signal(number, stop)
devices = os.environ.get("JAX_NUM_CPU_DEVICES")
print(f"{' '.join(sys.argv[1:])} devices={devices}")
if told.get("fails") == index:
  sys.exit(int(told["with"]))
if told.get("killed") == index:
  os.kill(os.getpid(), signal.SIGKILL)
while "waits" in told:
  time.sleep(0.05)
