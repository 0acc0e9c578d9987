"""Keys of `launcher.kubernetes`: what the cluster has to be told of a job (docs/kubernetes.md)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class KubernetesConfig:
    kind: str = "jobset"
    """jobset (jobset.x-k8s.io/v1alpha2) | trainjob (trainer.kubeflow.org/v1alpha1, Kubeflow Trainer 2.2)."""
    context: str | None = None
    """Of kubectl's configuration. Unset: its current one, or the service account of the pod that kubectl runs in."""
    namespace: str = "default"
    """In which everything is made."""
    image: str | None = None
    """Container image with this project in launcher.kubernetes.directory (docker/). Must be given."""
    directory: str = "/opt/trainer"
    """Where the project lies in the image, and where commands start."""
    instance: str | None = "trn1.32xlarge"
    """Kind of machine, which gives its Neuron chips and EFA devices. Unset: any machine, without accelerators."""
    resources: dict[str, str] = field(default_factory=dict)
    """Further resources of a pod, as Kubernetes writes them: cpu, memory, nvidia.com/gpu, hugepages-2Mi ..."""
    shared_memory: str = "16Gi"
    """Bound of /dev/shm in a pod. What is used of it counts as the pod's memory."""
    volume_claim: str | None = None
    """PersistentVolumeClaim for runs, ReadWriteMany where there are several nodes. Must be given for a run."""
    volume_path: str = "/opt/trainer/runs"
    """Where it is mounted: run.root lies on it, and caches may."""
    secret: str | None = None
    """Secret in the namespace whose keys become variables of the job (WANDB_API_KEY ...)."""
    service_account: str | None = None
    """ServiceAccount of the pods, for example one with a role for S3."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Further labels that a node must have: a zone, a node group."""
    tolerate: list[str] = field(default_factory=list)
    """Keys of further taints that a node may have. Those of Neuron and EFA are tolerated anyway."""
    queue: str | None = None
    """Kueue's LocalQueue, which admits the job. Unset: the job starts at once."""
    suspend: bool = False
    """The job is made suspended, and begins when somebody sets its spec.suspend to false."""
    restarts: int = 3
    """How often a job starts again after a crash, a lost peer or a hang. A job that was preempted always does."""
    runtime: str | None = None
    """kind=trainjob: a ClusterTrainingRuntime of the cluster's. Unset: a TrainingRuntime is made with the job."""
    keep_days: float = 7.0
    """How long a job that has ended stays in the cluster, to be looked at."""
