"""The schema: everything a run can be told, as frozen dataclasses. Values live in conf/.

A field's docstring says what it means and its unit. Fields listed in ``OUTSIDE_TRAJECTORY`` may change between a
run and its resume; every other field alters the loss curve, and a silent change of it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.backend import BackendConfig
from trainer.config.groups.checkpoint import CheckpointConfig
from trainer.config.groups.data import DataConfig
from trainer.config.groups.evaluation import EvaluationConfig
from trainer.config.groups.launcher import LauncherConfig
from trainer.config.groups.logging import LoggingConfig
from trainer.config.groups.model import ModelConfig
from trainer.config.groups.optim import OptimConfig
from trainer.config.groups.parallel import ParallelConfig
from trainer.config.groups.precision import PrecisionConfig
from trainer.config.groups.rehearsal import RehearsalConfig
from trainer.config.groups.reliability import ReliabilityConfig
from trainer.config.groups.resume import ResumeConfig
from trainer.config.groups.run import RunConfig
from trainer.config.groups.schedule import ScheduleConfig
from trainer.config.groups.train import TrainConfig

OUTSIDE_TRAJECTORY = (
    "recipe",
    "run",
    "resume",
    "parallel",
    "checkpoint",
    "evaluation",
    "logging",
    "backend",
    "launcher",
    "rehearsal",
    "reliability",
    "train.microbatch",
    "train.stop_after_steps",
    "model.loss_chunk_tokens",
    "model.published_parameters",
    "data.bad_documents",
    "data.cache_dir",
    "data.chat_template",
    "data.cache_gb",
    "data.prefetch",
    "data.max_epochs",
    "data.tokenizer.path",
    "data.tokenizer.max_unknown",
)
"""Keys (or their parents) that do not alter the loss curve: layout, saving, watching, and where the data lies.

The paths of data.sources are another one: text and tokenizer are compared by content (trainer/training/resume.py).
"""


@dataclass(frozen=True)
class Config:
    recipe: str | None = None
    """Name of the recipe that these values come from."""
    task: str = "pretrain"
    """Kind of training: the module of recipes/ that assembles it."""
    seed: int = 1234
    """Seeds initialisation, shuffling and sampling."""
    run: RunConfig = field(default_factory=RunConfig)
    """Where the run lives and what it is called."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length and batch."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Dimensions of the model."""
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    """What is trained in the place of the model's own weights."""
    data: DataConfig = field(default_factory=DataConfig)
    """Text, tokens and samples."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """How ranks share the work; what is left over is data parallel."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning rate over time."""
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    """Number formats."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Saving."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Held-out loss and samples."""
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    """What is printed."""
    backend: BackendConfig = field(default_factory=BackendConfig)
    """What executes the step."""
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    """What starts a job, and where."""
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    """What backend=fake pretends."""
    reliability: ReliabilityConfig = field(default_factory=ReliabilityConfig)
    """What happens when something goes wrong."""
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    """What a resume may change."""
