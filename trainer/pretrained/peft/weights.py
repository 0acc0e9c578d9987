"""Values of an adapter to begin with: any box, read from where it lies."""

from __future__ import annotations

import torch

from trainer.checkpoint.mapped import MappedFiles
from trainer.checkpoint.strict_json import Unsound
from trainer.config.groups.model import ModelConfig
from trainer.parallel.boxes import Box, whole_box
from trainer.pretrained.merge import Read
from trainer.pretrained.peft.config import WEIGHTS, refused
from trainer.pretrained.peft.source import AdapterSource
from trainer.pretrained.source import Source
from trainer.pretrained.weights import parts_of

ROWS = 1024


def adapter_weights(source: AdapterSource) -> Read:
    """Values of any box of ``source.shapes``, only to be read. Raises ConfigError for what is not finite."""
    if source.stored is not None:
        read = parts_of(Source(source.given, source.path, ModelConfig(), {}, None, (), stored=source.stored))
    else:
        read = _FromPeft(source)

    def reading(box: Box) -> torch.Tensor:
        values = read(box)
        if not bool(torch.isfinite(values).all()):
            rule = f"is finite; {box.name} holds NaN or infinities"
            raise refused(source.given, rule, "take an earlier one: a training that has broken saved this")
        return values

    return reading


class _FromPeft:
    def __init__(self, source: AdapterSource) -> None:
        assert source.keys is not None
        self._given, self._keys = source.given, source.keys
        self._files = MappedFiles(source.path)

    def __call__(self, box: Box) -> torch.Tensor:
        key, entry = self._keys[box.name]
        wanted = tuple(slice(o, o + n) for o, n in zip(box.offsets, box.sizes, strict=True))
        try:
            return self._files.tensor(WEIGHTS, key, entry.dtype, entry.shape)[wanted]
        except (Unsound, OSError) as error:
            rule = f"is what it was when the run was configured ({error})"
            raise refused(self._given, rule, "nothing may write there meanwhile") from error


def refuse_other_copies(source: AdapterSource, base: Read) -> None:
    """Raise ConfigError where the directory holds weights of its base that are not this base's.

    peft loads them over the base, silently: with another one's embedding this would be another model.
    """
    if not source.base_keys:
        return
    read = _FromPeft(AdapterSource(source.given, source.path, source.config, {}, "", keys=source.base_keys))
    for name, (key, entry) in source.base_keys.items():
        whole = whole_box(name, entry.shape)
        for start in range(0, entry.shape[0], ROWS):
            block = whole.rows(start, start + ROWS)
            assert block is not None
            if not torch.equal(read(block).float(), base(block).float()):
                rule = f"was trained beside this base; its copy of the base's weights, {key}, is not equal to it"
                raise refused(source.given, rule, "name the model that it was trained beside: model.init_from")
