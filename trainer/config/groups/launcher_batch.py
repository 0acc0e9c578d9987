"""Keys of `launcher.batch`: what AWS Batch has to be told of a job (docs/batch.md)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class BatchConfig:
    queue: str | None = None
    """Job queue, by name or ARN. Must be given. Its compute environment has EFA through its launch template."""
    image: str | None = None
    """Container image with this project in launcher.batch.directory (docker/). Must be given."""
    directory: str = "/opt/trainer"
    """Where the project lies in the image, and where commands start."""
    region: str | None = None
    """AWS region. Unset: AWS_REGION, or that of the profile."""
    instance: str | None = "trn1.32xlarge"
    """Kind of machine, which gives its Neuron chips and EFA devices. Unset: any machine, without accelerators."""
    vcpus: int = 96
    """Virtual CPUs of a container."""
    memory_mib: int = 480000
    """Memory of a container, MiB. A trn1.32xlarge has 524288, of which the host needs some."""
    shared_memory_mib: int = 16384
    """Bound of /dev/shm in a container, MiB."""
    file_system: str | None = None
    """Amazon EFS file system for runs (fs-...). It or host_path must be given for a run."""
    host_path: str | None = None
    """Directory of the machine instead, where its launch template mounts a shared file system (FSx for Lustre)."""
    volume_path: str = "/opt/trainer/runs"
    """Where that is mounted: run.root lies on it, and caches may."""
    job_role: str | None = None
    """ARN of the role that the job has, for example for S3."""
    execution_role: str | None = None
    """ARN of the role that starts the container: it reads launcher.batch.secrets."""
    secrets: dict[str, str] = field(default_factory=dict)
    """Variable -> ARN of a secret (Secrets Manager) or of a parameter (SSM) that holds its value."""
    share: str | None = None
    """Share identifier, which a queue with fair-share scheduling asks for."""
    security_groups: list[str] = field(default_factory=list)
    """Of the machines, for the launch template that is rendered beside a job. Unset: the network's default one."""
    restarts: int = 3
    """How often Batch starts the job again: at most 9."""
    log_group: str = "/aws/batch/job"
    """CloudWatch log group of the job."""
    schedule_role: str | None = None
    """ARN of the role with which EventBridge Scheduler submits scheduled commands."""
