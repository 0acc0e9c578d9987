"""inspect: the tensors of a checkpoint, and how far the run was. Without torch."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from trainer.checkpoint.index import Stored, file_of, read_index
from trainer.checkpoint.manifest import read_manifest
from trainer.checkpoint.names import PARTS
from trainer.checkpoint.sizes import in_bytes
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.verify import read_state
from trainer.commands.ckpt.listing import layout
from trainer.commands.ckpt.places import CommandError, checkpoint_of
from trainer.commands.ckpt.table import table, times
from trainer.errors import Problem


def inspect(given: str, pattern: str) -> Iterator[str]:
    """Lines about a checkpoint. pattern: of the tensors' names. Raises CommandError where it cannot be read."""
    path = checkpoint_of(given)
    try:
        manifest, state = read_manifest(path), read_state(path)
        parts = {part: read_index(path / part) for part in PARTS}
    except (OSError, Unsound) as error:
        remedy = "scripts/ckpt.py verify says what is wrong with each checkpoint of the run"
        raise CommandError(Problem("CHECKPOINT", str(path), f"can be read ({error})", remedy)) from None
    yield f"{path}: saved by {layout(manifest.topology)}"
    yield f"  step {state.step:,}, tokens {state.tokens:,}, updates {state.updates:,}; cursor {state.cursor}"
    if state.base is not None:
        yield f"  beside its base, which holds what was not trained: {state.base}, {in_bytes(state.base.bytes)}"
        yield from (f"    {one.sha256[:16]}  {one.size:>14,}  {name}" for name, one in state.base.files.items())
    rows = [("part", "tensor", "shape", "dtype", "chunks", "files")]
    for part, tensors in parts.items():
        for name, tensor in tensors.items():
            if fnmatchcase(name, pattern):
                chunks = f"{len(tensor.ranks):,}"
                rows.append((part, name, times(tensor.shape), tensor.dtype, chunks, _files(tensor)))
    if len(rows) == 1:
        rule = f"the name of one of the {sum(map(len, parts.values()))} tensors, or a pattern as '*.norm.weight'"
        raise CommandError(Problem("PATTERN", pattern, rule, "leave it out to see them all"))
    yield from table(rows, right=(4,))


def _files(tensor: Stored) -> str:
    ranks = sorted(set(tensor.ranks.tolist()))
    if not ranks:
        return "none: it has no elements"
    if len(ranks) == 1:
        return file_of(ranks[0])
    return f"{len(ranks):,} from {file_of(ranks[0])} to {file_of(ranks[-1])}"
