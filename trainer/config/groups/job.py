"""Keys of a scheduled job: a file of conf/job, read by scripts/jobs.py. A training's own keys are its overrides."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class JobScheduleConfig:
    """When an occurrence is due. Exactly one of cron, after and new_data."""

    cron: str | None = None
    """Minute, hour, day of month, month, day of week: "0 2 * * *" is every night at two."""
    time_zone: str = "UTC"
    """Whose wall clock cron speaks of, as the IANA's database names it: Europe/Berlin."""
    after: str | None = None
    """Another job: due when an occurrence of it has published."""
    new_data: bool = False
    """Due when the data are no longer those of the last occurrence that was decided."""
    catch_up: str = "latest"
    """Of several slots that were missed: latest (one occurrence, the others are recorded as missed) | all | none."""
    deadline_minutes: float | None = None
    """A slot that cannot begin within so long of its time is recorded as missed. Unset: it waits."""
    begins: str | None = None
    """No slot before this day, 2026-11-30. Unset: from the first tick on."""


@dataclass(frozen=True)
class JobStartConfig:
    """Weights that an occurrence starts from; optimizer, schedule, step and order of the data begin anew."""

    model: str = "champion"
    """champion | a version of publish.model | recipe (what the recipe itself starts from)."""
    otherwise: str = "recipe"
    """Where there is no champion yet: recipe (what the recipe itself starts from) | refuse."""
    adapter: str = "continue"
    """LoRA after LoRA of the same base and form: continue (it goes on) | merge (a new one on merged weights)."""


@dataclass(frozen=True)
class JobRetriesConfig:
    """How often a stage is tried again, by the exit code that it ended with (docs/exit_codes.md)."""

    codes: dict[str, int] = field(
        default_factory=lambda: {"10": 20, "12": 3, "13": 1, "15": 2, "storage": 48, "other": 2}
    )
    """Tries after the first for each code; "storage": a directory or bucket that refuses; "other": any that is not
    named. 3, 4, 11 and 14 are never tried again."""
    delay_minutes: float = 1.0
    """Before the first retry; doubled for each further one. After 10 (preempted, saved) there is none."""
    longest_delay_minutes: float = 60.0
    """The delay grows no further."""


@dataclass(frozen=True)
class JobLimitsConfig:
    """What one occurrence may use, all its tries together. Beyond it is cancelled and has failed."""

    minutes: float | None = None
    """Of training, from its first submission on."""
    steps: int | None = None
    """A recipe that would train longer is refused."""
    money: float | None = None
    """Node hours x launcher.price_per_node_hour, in whatever currency that is."""


@dataclass(frozen=True)
class JobSetConfig:
    """A frozen set that candidate and champion are scored on; its fingerprint is part of the verdict."""

    name: str = ""
    """What gates call it."""
    paths: list[str] = field(default_factory=list)
    """Files and directories; no globs, no s3://. Of kind=tasks one file."""
    kind: str = "text"
    """text (loss) | tasks (accuracy), as evaluation.sets has it."""
    chat: str | None = None
    """Rows are conversations, as data.sources has it."""
    seq_len: int | None = None
    """Tokens of a window. Unset: what the model takes, at most 2048."""


@dataclass(frozen=True)
class JobGateConfig:
    """One condition that a candidate has to meet. All have to be met."""

    name: str = ""
    """What verdicts call it."""
    kind: str = "champion"
    """absolute (limit) | champion (better than the champion's by more than margin; a tie keeps the champion)
    | regression (worse than it by at most margin) | size (GB of the exported model, limit) | latency (ms a token,
    limit)."""
    set: str = ""
    """Name of one of sets; kind=absolute, champion and regression."""
    metric: str = "loss"
    """loss (of a set of kind=text; lower is better) | accuracy (of kind=tasks; higher is better)."""
    limit: float | None = None
    """kind=absolute, size, latency: the worst value that passes."""
    margin: float = 0.0
    """kind=champion: by how much a candidate has to be better. kind=regression: by how much it may be worse."""


@dataclass(frozen=True)
class JobPublishConfig:
    """Where what has passed goes."""

    registry: str = "registry"
    """A directory, or s3://bucket/prefix."""
    model: str = ""
    """Name of the model whose versions these are. Unset: the job's name."""
    alias: str = "champion"
    """Moved to a version that passes its gates: champion | challenger (for a person to promote). Gates compare with the
    champion either way."""
    dtype: str | None = None
    """Of the exported weights. Unset: the model's own."""
    mlflow: str | None = None
    """Name of a model in MLflow's registry that shows what is published here, alias and all; MLFLOW_TRACKING_URI says
    where that is. Unset: none."""


@dataclass(frozen=True)
class JobRetentionConfig:
    """What is kept when an occurrence has ended."""

    versions: int = 5
    """Newest versions of the model; those that an alias names, or has named last, stay as well."""
    runs: int = 3
    """Newest runs of this job, with their checkpoints. Records of occurrences are always kept."""


@dataclass(frozen=True)
class JobNotifyConfig:
    """Who is told how an occurrence has ended."""

    ends: list[str] = field(default_factory=lambda: ["published", "rejected", "failed", "cancelled"])
    """Ends that are told."""
    webhook_variable: str | None = None
    """Environment variable with the address that gets a POST of JSON. An address is a secret, and is never written."""
    command: list[str] = field(default_factory=list)
    """Program and its arguments; the same JSON is its standard input."""


@dataclass(frozen=True)
class JobConfig:
    """One scheduled job."""

    recipe: str = ""
    """What is trained: recipe=... of scripts/train.py."""
    overrides: list[str] = field(default_factory=list)
    """Further overrides, as on its command line; launcher=slurm launcher.nodes=2 among them."""
    enabled: bool = True
    """false: no new occurrence by itself; what is open ends, and run still works."""
    schedule: JobScheduleConfig = field(default_factory=JobScheduleConfig)
    """When."""
    start: JobStartConfig = field(default_factory=JobStartConfig)
    """From which weights."""
    retries: JobRetriesConfig = field(default_factory=JobRetriesConfig)
    """After which ends it is tried again."""
    limits: JobLimitsConfig = field(default_factory=JobLimitsConfig)
    """How much it may use."""
    sets: list[JobSetConfig] = field(default_factory=list)
    """What candidates are scored on."""
    gates: list[JobGateConfig] = field(default_factory=list)
    """What they have to meet."""
    publish: JobPublishConfig = field(default_factory=JobPublishConfig)
    """Where they go."""
    retention: JobRetentionConfig = field(default_factory=JobRetentionConfig)
    """How long things are kept."""
    notify: JobNotifyConfig = field(default_factory=JobNotifyConfig)
    """Who is told."""
