"""Names in the cluster, and the labels by which things are found."""

from __future__ import annotations

import hashlib

WORKER = "node"
"""Replicated job and container of the workers: the name that Kubeflow Trainer looks for."""
LONGEST = 46
"""Of an object: JobSet refuses one whose pods' names (-node-0-999-abcde after it) have more than 63 characters."""
MANAGED = {"app.kubernetes.io/name": "trainer", "app.kubernetes.io/managed-by": "trainer-submit"}
JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Which JobSet puts on its pods; that of a TrainJob has the TrainJob's name."""
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def object_name(name: str) -> str:
    """A submission's name in the cluster: begins with a letter, and fits. The same name gives the same every time."""
    plain = name if name[0].isalpha() else f"j{name}"
    if plain == name and len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{plain[: LONGEST - 9].rstrip('-')}-{digest}"


def first_host(name: str) -> str:
    """The first worker's name in DNS, which JobSet's headless service of the object's own name resolves."""
    return f"{name}-{WORKER}-0-0.{name}"
