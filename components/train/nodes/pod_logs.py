"""The logs of a TrainJob's pods, copied line by line into the step's own log."""

from __future__ import annotations

import logging
import sys
import threading
import time

from kubernetes import client

from components.common.errors import ClusterError
from components.common.printable import printable
from components.train.nodes.cluster import Cluster
from components.train.nodes.pods import has_ended, has_started, node_name

logger = logging.getLogger(__name__)

LAST_LINES_SECONDS = 10.0
"""How long the last lines may take when a TrainJob has ended, or is deleted."""


class PodLogs:
    """Follows each pod's log in a thread; `follow` starts what is new, and what broke off.

    A context manager: it ends when every line that was on its way is there, or after `LAST_LINES_SECONDS`.
    """

    def __init__(self, cluster: Cluster) -> None:
        """Follows nothing yet."""
        self._cluster = cluster
        self._logs: dict[str, _Log] = {}

    def follow(self, pods: list[client.V1Pod]) -> None:
        """Copies what the pods write from now on, and what they wrote before."""
        for pod in pods:
            if has_started(pod):
                log = self._logs.setdefault(pod.metadata.uid, _Log(self._cluster, pod.metadata.name, node_name(pod)))
                log.go_on(pod)

    def __enter__(self) -> PodLogs:
        return self

    def __exit__(self, *failure: object) -> None:
        deadline = time.monotonic() + LAST_LINES_SECONDS
        for log in self._logs.values():
            log.join(max(0.0, deadline - time.monotonic()))


class _Log:
    """The log of one pod: how far it was copied, and the thread that does it."""

    def __init__(self, cluster: Cluster, pod: str, node: str) -> None:
        self._cluster, self._pod, self._node = cluster, pod, node
        self._copied_until = ""
        self._whole = False
        self._thread: threading.Thread | None = None

    def go_on(self, pod: client.V1Pod) -> None:
        if self._whole or (self._thread is not None and self._thread.is_alive()):
            return
        # The end of a stream may be that of a connection or of a rotated file: only what begins after the container's
        # end is known to be whole.
        self._thread = threading.Thread(target=self._copy, args=[has_ended(pod)], daemon=True, name=f"log-{self._pod}")
        self._thread.start()

    def join(self, seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(seconds)

    def _copy(self, to_its_end: bool) -> None:
        # A log that is followed again begins at its first line. Its time stamps have a fixed width: text compares them.
        copied_before = self._copied_until
        try:
            for line in self._cluster.follow_log(self._pod):
                stamp, _, text = line.partition(" ")
                if stamp > copied_before:
                    self._copied_until = stamp
                    # print would let another line in before its end
                    sys.stderr.write(f"{self._node} | {printable(text)}\n")
            self._whole = to_its_end
        except ClusterError as error:
            logger.warning("%s; it is asked for again while the training goes on", error)
