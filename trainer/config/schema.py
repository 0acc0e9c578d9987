"""The schema: everything a run can be told, as frozen dataclasses. Values live in conf/.

A field's docstring says what it means and its unit. Fields listed in ``OUTSIDE_TRAJECTORY`` may change between a
run and its resume; every other field alters the loss curve, and a silent change of it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OUTSIDE_TRAJECTORY = (
    "recipe",
    "run",
    "resume",
    "parallel",
    "checkpoint",
    "evaluation",
    "logging",
    "backend",
    "reliability",
    "train.microbatch",
    "train.stop_after_steps",
    "model.loss_chunk_tokens",
    "model.published_parameters",
    "data.cache_dir",
    "data.prefetch",
)
"""Keys (or their parents) that do not alter the loss curve: layout, saving, watching."""


@dataclass(frozen=True)
class RunConfig:
    root: str = "runs"
    """Directory that holds all runs."""
    name: str | None = None
    """A run is known by this name; its directory is root/name. Unset: the recipe's name (and a sweep's overrides)."""


@dataclass(frozen=True)
class TrainConfig:
    tokens: int | None = None
    """Length of training in tokens. Set this or `steps`."""
    steps: int | None = None
    """Length of training in steps (optimizer updates). Set this or `tokens`."""
    tokens_per_step: int = 16384
    """Global batch in tokens, over all ranks and microbatches: a multiple of data.seq_len."""
    microbatch: int = 8
    """Samples that one rank takes through the model at once. Changes memory and speed, not the curve."""
    stop_after_steps: int | None = None
    """End this process early, saved, after so many steps in all; the schedule still spans the full length."""


@dataclass(frozen=True)
class RopeScalingConfig:
    kind: str = "none"
    """none | linear | llama3."""
    factor: float = 1.0
    """How many times longer than the original context."""
    original_max_positions: int = 8192
    """Context length of the pretrained model, in tokens (llama3)."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above original_max_positions / this are fully scaled."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below original_max_positions / this are left alone."""


@dataclass(frozen=True)
class ModelConfig:
    name: str = "tiny"
    """For messages and metadata only."""
    hidden: int = 256
    """Width of the residual stream."""
    layers: int = 4
    """Number of decoder layers."""
    heads: int = 4
    """Number of query heads."""
    kv_heads: int = 4
    """Number of key and value heads; divides `heads` (grouped-query attention when fewer)."""
    head_dim: int | None = None
    """Size of one head. Unset: hidden / heads."""
    mlp: int = 704
    """Width of the SwiGLU feed-forward."""
    vocab: int = 4096
    """Rows of the embedding: at least the tokenizer's number of ids."""
    max_positions: int = 2048
    """Longest sequence that the model is meant for, in tokens."""
    norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    rope_theta: float = 10000.0
    """Base of the rotary embedding's wavelengths."""
    rope_scaling: RopeScalingConfig = field(default_factory=RopeScalingConfig)
    """Stretching of the rotary embedding for longer contexts."""
    tied: bool = False
    """The head reuses the embedding matrix."""
    qkv_bias: bool = False
    """Query, key and value projections carry a bias."""
    init_std: float = 0.02
    """Standard deviation of the initial weights."""
    loss_chunk_tokens: int = 1024
    """Tokens whose logits exist at the same time in the loss. Memory only."""
    published_parameters: int | None = None
    """Parameters of the published checkpoint, where its index tells: to check the dimensions against."""


@dataclass(frozen=True)
class SourceConfig:
    kind: str = "files"
    """files (text, JSONL or Parquet, by suffix) | python_stdlib | huggingface | indexed (.bin/.idx prefix) | plugin."""
    name: str = "corpus"
    """For messages, the cache and the cursor; unique among the sources."""
    paths: list[str] = field(default_factory=list)
    """Files, directories or globs; a data set's name or directory for huggingface; prefixes for indexed."""
    weight: float = 1.0
    """Share of the training samples, relative to the other sources."""
    text_field: str = "text"
    """Column that holds the text (JSONL, Parquet, huggingface)."""
    document_unit: str = "file"
    """Text files: a document is a file | paragraph | line."""
    subset: str | None = None
    """huggingface: configuration of the data set."""
    split: str = "train"
    """huggingface: split to read."""
    _target_: str | None = None
    """plugin: dotted name of a callable of yours that returns an iterable of documents (str)."""
    options: dict[str, Any] = field(default_factory=dict)
    """plugin: its keyword arguments."""


@dataclass(frozen=True)
class TokenizerConfig:
    kind: str = "train_bpe"
    """train_bpe (byte-level, learnt from the training part) | file (tokenizer.json or a Hugging Face directory)."""
    path: str | None = None
    """kind=file: the tokenizer.json or the directory that holds one."""
    vocab: int = 4096
    """train_bpe: number of ids, special tokens included."""
    eod: str | None = None
    """Token that ends a document. Unset: the tokenizer's own end-of-text token."""


@dataclass(frozen=True)
class DataConfig:
    sources: list[SourceConfig] = field(default_factory=list)
    """Where the text comes from."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """How text becomes tokens."""
    seq_len: int = 512
    """Tokens per sample."""
    document_mask: bool = True
    """Attention and targets stay inside a document."""
    heldout_fraction: float = 0.02
    """Share of documents kept for evaluation, chosen by a hash of their content, so duplicates never straddle."""
    cache_dir: str = ".cache/data"
    """Tokenised corpora and tokenizers, keyed by content; safe to share between runs and to delete."""
    prefetch: int = 2
    """Steps that a background thread prepares ahead."""


@dataclass(frozen=True)
class PipelineConfig:
    schedule: str = "1f1b"
    """1f1b | interleaved_1f1b | interleaved_zero_bubble."""
    virtual_stages: int = 1
    """Stages that each rank holds: 1 for 1f1b, 2 or more for the interleaved schedules."""
    cuts: list[int] = field(default_factory=list)
    """Decoder layers of each stage, first to last. Empty: balanced by cost, the head's included."""


@dataclass(frozen=True)
class ParallelConfig:
    tp: int = 1
    """Tensor-parallel size."""
    pp: int = 1
    """Pipeline-parallel size: ranks that share the layers."""
    cp: int = 1
    """Context-parallel size: ranks that share the positions of a sample."""
    sp: bool = False
    """Sequence parallelism: between the tensor-parallel blocks, each rank keeps a part of the sequence only."""
    zero: int = 0
    """Cut over the dp x cp ranks: 0 nothing | 1 masters and moments | 2 and gradients | 3 and weights."""
    recompute: str = "none"
    """Activations made again in the backward pass: none | selective (all but matrix products) | full."""
    recompute_every: int = 1
    """Recompute in every k-th layer only."""
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    """Stages and their schedule, where pp is above 1."""


@dataclass(frozen=True)
class OptimConfig:
    name: str = "adamw"
    """adamw."""
    _target_: str | None = None
    """Dotted name of an optimizer class of yours, used instead: target(parameter groups, lr=lr, **options)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of _target_. It takes lr, weight_decay and clip_norm from here, and neither betas nor eps."""
    lr: float = 1e-3
    """Peak learning rate."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.95
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.1
    """Decoupled decay, times the learning rate; matrices only: norms and biases are excluded."""
    clip_norm: float = 1.0
    """Global gradient norm above which gradients are scaled down."""


@dataclass(frozen=True)
class ScheduleConfig:
    kind: str = "cosine"
    """cosine | wsd | linear | constant | multistep."""
    warmup_steps: int | None = None
    """Steps of linear warm-up. Unset: warmup_fraction of all steps."""
    warmup_fraction: float = 0.02
    """Share of training spent warming up, when warmup_steps is unset."""
    min_ratio: float = 0.1
    """Final learning rate as a share of the peak (cosine, linear, wsd)."""
    decay_fraction: float = 0.2
    """wsd: share of training spent in the final decay."""
    milestones: list[float] = field(default_factory=lambda: [0.8, 0.9])
    """multistep: shares of training at which the learning rate is multiplied by `factor`."""
    factor: float = 0.316
    """multistep: the multiplier."""


@dataclass(frozen=True)
class PrecisionConfig:
    mode: str = "bf16_mixed"
    """fp32 | bf16_mixed (BF16 compute, FP32 masters, accumulation and reduction) | bf16 (all BF16)."""
    cpu_fallback: str | None = "fp32"
    """Mode to use where the CPU has no BF16 instructions; null to use `mode` all the same."""


@dataclass(frozen=True)
class CheckpointConfig:
    every_steps: int = 100
    """Save every so many steps, and always at the end; 0 saves at the end only."""
    keep: int = 2
    """Newest checkpoints to keep; 0 keeps all."""


@dataclass(frozen=True)
class EvaluationConfig:
    every_steps: int = 100
    """Evaluate on held-out text every so many steps, and always at the end; 0 never."""
    windows: int = 128
    """Held-out samples to score, spread evenly over the held-out text."""
    sample_prompt: str = "def "
    """Text that the printed sample continues; empty for no sample."""
    sample_tokens: int = 48
    """Length of the printed sample, in tokens."""
    sample_temperature: float = 0.7
    """0 takes the likeliest token."""


@dataclass(frozen=True)
class WandbConfig:
    mode: str = "off"
    """off | auto (online with an account, else offline) | online | offline (`wandb sync` sends it later)."""
    project: str = "trainer"
    """W&B project."""
    entity: str | None = None
    """W&B user or team. Unset: the account's own."""
    group: str | None = None
    """W&B group of runs."""
    tags: list[str] = field(default_factory=list)
    """W&B tags."""


@dataclass(frozen=True)
class LoggingConfig:
    every_steps: int = 10
    """Print a line every so many steps; metrics.jsonl has every step."""
    progress: str = "auto"
    """auto (a bar on a terminal, plain lines elsewhere) | bar | lines | off."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases, beside metrics.jsonl."""


@dataclass(frozen=True)
class BackendConfig:
    name: str = "auto"
    """auto (neuron where there is Trainium, native elsewhere) | native | neuron | fake."""
    world: int | None = None
    """fake: processes to pretend. Unset: one copy of the model, on whole nodes of 32 where the batch allows."""
    rank: int | None = None
    """fake: the one rank to rehearse. Unset: one of each class of ranks (pipeline stage)."""
    timeout_seconds: float = 600.0
    """How long a collective may take before the process group gives up."""


@dataclass(frozen=True)
class ReliabilityConfig:
    nonfinite: str = "stop"
    """A non-finite gradient norm never touches the weights; then: stop (exit 11) | skip (go on)."""
    nonfinite_limit: int = 10
    """skip: stop all the same after so many in a row."""
    grace_seconds: float = 300.0
    """How long scripts/launch.py waits for workers that were asked to stop to save and end, before it kills them."""


@dataclass(frozen=True)
class ResumeConfig:
    allow: list[str] = field(default_factory=list)
    """Trajectory keys that may differ from the saved run."""


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
    reliability: ReliabilityConfig = field(default_factory=ReliabilityConfig)
    """What happens when something goes wrong."""
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    """What a resume may change."""
