"""The parts of the Kubernetes client that JAX calls, and the cluster behind.

Its only pods are those of the JobSet in the variable STAND_IN_JOBSET, on this
machine. What a real cluster would have as files and names, JAX is given here.
"""

import json
import os
import socket
from types import SimpleNamespace as Object

NAMESPACE = "default"
_JOBSET = json.loads(os.environ["STAND_IN_JOBSET"])
_NAME = _JOBSET["metadata"]["name"]
_REPLICATED = _JOBSET["spec"]["replicatedJobs"][0]
# As the controllers of JobSet and Job name them.
JOB = f"{_NAME}-{_REPLICATED['name']}-0"
FIRST_POD = f"{JOB}-0.{_NAME}"


class ApiException(Exception):  # noqa: N818
  status, reason = 403, "Forbidden"


class CoreV1Api:
  def list_namespaced_pod(self, namespace: str, field_selector: str) -> Object:
    assert namespace == NAMESPACE
    assert field_selector.startswith("status.podIP=")
    owner = Object(controller=True, kind="Job")
    metadata = Object(
      name=JOB, labels={"job-name": JOB}, owner_references=[owner]
    )
    return Object(items=[Object(metadata=metadata, spec=Object())])


class BatchV1Api:
  def read_namespaced_job(self, name: str, namespace: str) -> Object:
    assert (name, namespace) == (JOB, NAMESPACE)
    labels = {"jobset.sigs.k8s.io/jobset-name": _NAME}
    spec = _REPLICATED["template"]["spec"]
    return Object(
      metadata=Object(name=JOB, labels=labels),
      spec=Object(parallelism=spec["parallelism"]),
    )


def load_incluster_config() -> None:
  """Stands in for the account's files and the cluster's names."""
  from jax._src.clusters.k8s_cluster import K8sCluster

  resolve, find = socket.gethostbyname, K8sCluster.get_coordinator_address

  def with_pods(host: str) -> str:
    return "127.0.0.1" if host == FIRST_POD else resolve(host)

  def on_this_machine(*arguments: object, **named: object) -> str:
    host, port = find(*arguments, **named).split(":")
    assert host == FIRST_POD
    return f"127.0.0.1:{port}"

  socket.gethostbyname = with_pods
  K8sCluster._namespace = lambda: NAMESPACE
  K8sCluster.get_coordinator_address = on_this_machine


config = Object(load_incluster_config=load_incluster_config)
client = Object(
  CoreV1Api=CoreV1Api,
  BatchV1Api=BatchV1Api,
  exceptions=Object(ApiException=ApiException),
)
