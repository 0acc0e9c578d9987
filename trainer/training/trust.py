"""What all ranks of a launch have to agree on before anything is built on it: compared, never taken for granted."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.backends.common.peers import Peers
from trainer.checkpoint.names import MANIFEST
from trainer.checkpoint.strict_json import Unsound
from trainer.config.keys import flatten
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.files import sha256
from trainer.pretrained.peft.config import NAME, WEIGHTS
from trainer.pretrained.source import fingerprint

MAY_DIFFER = (
    "adapter.init_from",
    "data.cache_dir",
    "data.cache_gb",
    "data.tokenizer.path",
    "data.prefetch",
    "logging",
    "model.init_from",
    "run.root",
)
"""Keys that nodes may have different values of: places on their disks, and what only rank 0 prints. That run.root is
one directory, whatever it is called, trainer.run.shared finds out."""
SHOWN = 6
"""Differences that a report lists."""

Facts = Mapping[str, Any]
"""JSON values by what they are called in a report: a key of the configuration, or words."""


def launch_facts(config: Config, environment: Mapping[str, Any], device: str) -> dict[str, Any]:
    """What a rank starts from: the configuration, the code, the packages, the kind of device.

    environment: trainer.run.directory.environment. device: kind of device.
    """
    facts = {key: value for key, value in flatten(dataclasses.asdict(config)).items() if not _may_differ(key)}
    for key in ("data.sources", "evaluation.sets"):
        facts[key] = [{**one, "paths": None} for one in facts[key]]
    facts |= {f"version of {name}": version for name, version in environment["packages"].items()}
    facts["version of python"] = ".".join(str(environment["python"]).split(".")[:2])
    facts["kind of device"] = device
    facts["code of the trainer"] = source_digest(Path(__file__).parents[1])[:16]
    if (source := config.model.init_from) is not None:
        facts["weights of model.init_from"] = _fingerprint(source)
    if (adapter := config.adapter.init_from) is not None:
        facts["adapters of adapter.init_from"] = _adapters(Path(adapter))
    for key in ("model.family", "optim.name", "backend.name"):
        if (code := _plugin_digest(str(facts[key]))) is not None:
            facts[f"code of {key}"] = code
    return facts


def _fingerprint(source: str) -> str:
    """A run that has begun may not need its source: one that is gone, or is none, is no difference of its own."""
    try:
        return fingerprint(Path(source))
    except (OSError, Unsound, ConfigError):
        return "not there"


def _adapters(source: Path) -> str:
    """Of peft's directory by its bytes, which are few."""
    try:
        files = [source / name for name in (MANIFEST, NAME, WEIGHTS) if (source / name).is_file()]
        return ", ".join(sha256(file)[:16] for file in files) or "not there"
    except OSError:
        return "not there"


def _may_differ(key: str) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in MAY_DIFFER)


def source_digest(*roots: Path) -> str:
    """SHA-256 over the names and contents of all Python files below the directories."""
    digest = hashlib.sha256()
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _plugin_digest(value: str) -> str | None:
    """Of the file that ``module:maker`` names; None for a name of ours, or where the module is not one file."""
    module, colon, _ = value.partition(":")
    spec = importlib.util.find_spec(module) if colon else None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return None
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]


def agree_on(peers: Peers, topic: str, facts: Facts, seconds: float) -> None:
    """Compare facts over all ranks. Raises ConfigError on every rank when any differs, naming ranks and values.

    topic: used once in a launch. seconds: longest wait for a rank.
    """
    text = json.dumps(facts, sort_keys=True, default=str)
    digests = peers.everyone(topic, hashlib.sha256(text.encode()).hexdigest(), seconds)
    if len(set(digests)) == 1:
        return
    # One text of each kind is enough to say what differs, and who has it is known.
    firsts = {digest: digests.index(digest) for digest in digests}
    if firsts[digests[peers.rank]] == peers.rank:
        peers.post(f"{topic}/text/{peers.rank}", text)
    texts = {digest: peers.wait(f"{topic}/text/{rank}", topic, seconds) for digest, rank in firsts.items()}
    raise ConfigError(list(differences([json.loads(texts[digest]) for digest in digests], peers)))


def differences(facts: Sequence[Facts], peers: Peers) -> list[Problem]:
    """What differs between ranks, by rank; the value that most ranks have is called the others'."""
    keys = sorted({key for one in facts for key in one}, key=lambda key: (_is_words(key), key))
    problems = [problem for key in keys if (problem := _difference(key, [one.get(key) for one in facts], peers))]
    return problems[:SHOWN]


def _difference(key: str, values: Sequence[Any], peers: Peers) -> Problem | None:
    texts = [json.dumps(value, sort_keys=True) for value in values]
    usual, _ = Counter(texts).most_common(1)[0]
    odd = [rank for rank, text in enumerate(texts) if text != usual]
    if not odd:
        return None
    there = [rank for rank in odd if texts[rank] == texts[odd[0]]]
    rule = f"the same on every rank; {peers.who(there)} has {_short(texts[odd[0]])}, the others {_short(usual)}"
    if _is_words(key):
        remedy = "bring all nodes to the same state, then give the same command on each"
    else:
        remedy = "give the same command, with the same files and variables behind it, on every node"
    return Problem(key, values[odd[0]], rule, remedy)


def _short(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _is_words(key: str) -> bool:
    """Whether this is no key of the configuration."""
    return " " in key
