"""The family maps over whole tensors in memory, in the plainest way: what import and export are held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from trainer.pretrained.format import FileTensor


def to_ours(
    tensors: Mapping[str, torch.Tensor], files: Iterable[FileTensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, torch.Tensor]:
    """A directory's tensors -> canonical parameters of these shapes."""
    made = {name: torch.full(shape, torch.nan) for name, shape in shapes.items()}
    for file in files:
        tensor = tensors[file.name]
        assert tuple(tensor.shape) == file.shape, file.name
        oriented = tensor.T if file.transposed else tensor
        for part in file.parts:
            into = made[part.name][part.start : part.start + part.rows]
            assert into.isnan().all(), f"rows of {part.name} come from two places"
            into.copy_(oriented[part.at : part.at + part.rows])
    incomplete = [name for name, tensor in made.items() if tensor.isnan().any()]
    assert not incomplete, "rows come from nowhere"
    return made


def to_theirs(parameters: Mapping[str, torch.Tensor], files: Iterable[FileTensor]) -> dict[str, torch.Tensor]:
    """The inverse."""
    made = {}
    for file in files:
        example = parameters[file.parts[0].name]
        oriented = example.new_full(file.shape[::-1] if file.transposed else file.shape, torch.nan)
        for part in file.parts:
            oriented[part.at : part.at + part.rows] = parameters[part.name][part.start : part.start + part.rows]
        made[file.name] = oriented.T.contiguous() if file.transposed else oriented
    return made
