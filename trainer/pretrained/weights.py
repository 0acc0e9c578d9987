"""Initial weights from a source: each rank reads the parts of the files that its boxes need, and nothing else.

What is returned is mostly a view over a mapped file, in the file's dtype: the caller copies it to its place, converting
(BF16 and FP16 to the FP32 master exactly), so that no rank ever holds more than its part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import torch

from trainer.checkpoint.index import Stored, file_of
from trainer.checkpoint.mapped import MappedFiles
from trainer.checkpoint.names import PARTS
from trainer.checkpoint.slices import overlaps
from trainer.checkpoint.strict_json import Unsound
from trainer.parallel.boxes import Box, whole_box
from trainer.pretrained.adapters import Adapters
from trainer.pretrained.directory import Directory
from trainer.pretrained.files import Held
from trainer.pretrained.format import FileTensor, Part
from trainer.pretrained.gguf_weights import FromGguf
from trainer.pretrained.merge import Merged
from trainer.pretrained.refused import AGAIN, refused
from trainer.pretrained.source import Source

Read = Callable[[Box], torch.Tensor]
Piece = tuple[torch.Tensor, tuple[slice, ...]]
"""Values, only to be read, and their place in the box."""
BLOCK = 1 << 24
"""Elements of the embedding that are in memory at a time while its mean is taken."""
ROWS_OF_TOKENS = ("model.embed_tokens.weight", "lm_head.weight")


def weights_of(source: Source, vocab: int) -> Read:
    """Values of any box of the model whose vocabulary has ``vocab`` rows: those there are, and as many more.

    They are of floating dtype, of shape ``box.sizes``, and only to be read. Raises ConfigError where the source is not
    what it was, or has no such parameter.
    """
    read = parts_of(source) if source.adapters is None else _told(source, _merged(source, source.adapters))
    return read if vocab == source.model.vocab else _Grown(read, source.model.vocab)


def parts_of(source: Source) -> Read:
    """Likewise, where adapters stand beside the weights: theirs, and the weights as they were without them."""
    return _told(source, _reader(source))


def _merged(source: Source, adapters: Adapters) -> Read:
    read = _reader(source)
    return Merged(read, read, adapters)


def _reader(source: Source) -> Read:
    if source.directory is not None:
        return _FromDirectory(source.directory)
    if source.gguf is not None:
        return FromGguf(source.gguf)
    stored = _FromCheckpoint(source)
    if source.base is None or source.stored is None:
        return stored
    model = source.model if source.adapters is None else source.adapters.model
    base, held = weights_of(source.base, model.vocab), source.stored
    return lambda box: stored(box) if box.name in held else base(box)


def _told(source: Source, read: Read) -> Read:
    def reading(box: Box) -> torch.Tensor:
        try:
            return read(box)
        except (Unsound, OSError) as error:
            rule = f"is what it was when the run was configured ({error})"
            raise refused(source.given, rule, f"{AGAIN}; nothing may write there meanwhile") from error

    return reading


class _FromDirectory:
    """Of Hugging Face's layout: tensors that are fused, or stored transposed, through the format's parts."""

    def __init__(self, directory: Directory) -> None:
        self._held, self._scales = directory.tensors, directory.scales
        self._files = MappedFiles(directory.path)
        self._parts: dict[str, list[tuple[FileTensor, Part]]] = defaultdict(list)
        for tensor in directory.form.tensors(directory.model):
            for part in tensor.parts:
                self._parts[part.name].append((tensor, part))

    def __call__(self, box: Box) -> torch.Tensor:
        if box.name not in self._parts:
            raise Unsound(f"it has no {box.name}")
        pieces = []
        first, last = box.offsets[0], box.offsets[0] + box.sizes[0]
        rest = tuple(slice(o, o + n) for o, n in zip(box.offsets[1:], box.sizes[1:], strict=True))
        for tensor, part in self._parts[box.name]:
            low, high = max(first, part.start), min(last, part.start + part.rows)
            if low < high:
                rows = slice(part.at + low - part.start, part.at + high - part.start)
                place = (slice(low - first, high - first), *(slice(0, n) for n in box.sizes[1:]))
                pieces.append((self._values(tensor, (rows, *rest)), place))
        return _together(box, pieces)

    def _values(self, tensor: FileTensor, wanted: tuple[slice, ...]) -> torch.Tensor:
        held = self._held[tensor.name]
        whole = self._files.tensor(held.file, held.key, held.entry.dtype, tensor.shape)
        if (scales := self._scales.get(tensor.name)) is not None:
            return self._scaled(tensor, whole, scales, wanted)
        if not tensor.transposed:
            return whole[wanted]
        # Row after row as they lie on the disk, and turned only then: the other way each element costs a cache line.
        part = whole[wanted[::-1]]
        return torch.empty(part.shape, dtype=torch.float32).copy_(part).t()

    def _scaled(self, tensor: FileTensor, whole: torch.Tensor, scales: Held, wanted: tuple[slice, ...]) -> torch.Tensor:
        """FP32 of int8 values: of the wanted ones only."""
        each = self._files.tensor(scales.file, scales.key, scales.entry.dtype, scales.entry.shape)
        channels = each.t() if tensor.transposed else each
        values = whole[wanted[::-1]].t() if tensor.transposed else whole[wanted]
        return values.to(torch.float32, copy=True).mul_(channels[wanted[0]])


class _FromCheckpoint:
    """Of a checkpoint of ours, whatever layout wrote it."""

    def __init__(self, source: Source) -> None:
        assert source.stored is not None
        self._stored = source.stored
        self._files = MappedFiles(source.path / PARTS[0])

    def __call__(self, box: Box) -> torch.Tensor:
        stored = self._stored.get(box.name)
        if stored is None or stored.shape != box.shape:
            there = "nothing" if stored is None else list(stored.shape)
            raise Unsound(f"{box.name} is {list(box.shape)}, it has {there}")
        return _together(box, [self._piece(*chunk, stored) for chunk in overlaps(box.name, stored, box)])

    def _piece(
        self,
        rank: int,
        key: str,
        shape: tuple[int, ...],
        source: tuple[slice, ...],
        place: tuple[slice, ...],
        stored: Stored,
    ) -> Piece:
        return self._files.tensor(file_of(rank), key, stored.dtype, shape)[source], place


def _together(box: Box, pieces: list[Piece]) -> torch.Tensor:
    """One piece as it is; several side by side, FP32 where their dtypes differ."""
    if len(pieces) == 1 and pieces[0][0].shape == torch.Size(box.sizes):
        return pieces[0][0]
    dtypes = {values.dtype for values, _ in pieces}
    out = torch.empty(box.sizes, dtype=dtypes.pop() if len(dtypes) == 1 else torch.float32)
    for values, place in pieces:
        out[place] = values
    return out


class _Grown:
    """A vocabulary with more rows than the source has: the new ones are the mean of the old.

    The mean is that of whole rows, block after block in FP64, whatever the box: every layout begins bitwise equal.
    """

    def __init__(self, read: Read, rows: int) -> None:
        """rows: of the source."""
        self._read, self._rows = read, rows
        self._means: dict[str, torch.Tensor] = {}

    def __call__(self, box: Box) -> torch.Tensor:
        if box.name not in ROWS_OF_TOKENS:
            return self._read(box)
        old = replace(box, shape=(self._rows, *box.shape[1:]))
        first, last = box.offsets[0], box.offsets[0] + box.sizes[0]
        if last <= self._rows:
            return self._read(old)
        if box.name not in self._means:
            self._means[box.name] = self._mean(box.name, old.shape)
        mean = self._means[box.name][box.offsets[1] : box.offsets[1] + box.sizes[1]]
        if first >= self._rows:
            return mean.expand(box.sizes)
        kept = self._read(replace(old, sizes=(self._rows - first, box.sizes[1])))
        return torch.cat([kept.float(), mean.expand(last - self._rows, -1)])

    def _mean(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        total = torch.zeros(shape[1], dtype=torch.float64)
        rows, whole = max(1, BLOCK // shape[1]), whole_box(name, shape)
        for start in range(0, shape[0], rows):
            block = whole.rows(start, start + rows)
            assert block is not None
            total += self._read(block).double().sum(dim=0)
        return (total / shape[0]).float()
