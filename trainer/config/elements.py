"""Overrides of one element of a list (data.sources.0.weight=2), and what is said where the list has none such."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer.config.grammar import spelt
from trainer.config.keys import INDEXED, element_of, is_element_key
from trainer.errors import Problem

CONF = Path(__file__).parents[2] / "conf"


def out_of_range(overrides: Sequence[Override], search_path: Sequence[Path]) -> Iterator[Problem]:
    """A problem for each override of an element that its list does not have, with the list as it is without them."""
    keys = {override.key_or_group or "": override for override in overrides}
    indexed = {key: match for key in keys if is_element_key(key) and (match := INDEXED.fullmatch(key))}
    if not indexed:
        return
    others = [override for key, override in keys.items() if key not in indexed and not override.is_sweep_override()]
    if (composed := _composed([override.input_line or "" for override in others], search_path)) is None:
        return
    for key, match in indexed.items():
        present = _present(composed, match["list"])
        if int(match["index"]) >= len(present):
            value = "(swept)" if keys[key].is_sweep_override() else keys[key].value()
            count = f"{len(present)} element{'' if len(present) == 1 else 's'}, counted from 0"
            whole = shlex.quote(f"{match['list']}={spelt(present)}")
            yield Problem(
                key, value, f"an element of {match['list']}, which has {count}", f"give the list whole: {whole}"
            )


def _composed(overrides: list[str], search_path: Sequence[Path]) -> Any:
    """The configuration that the command line's other overrides make; None where they make none either."""
    flags = dict(pairwise(sys.argv[1:])) | dict(
        flag.split("=", 1) for flag in sys.argv[1:] if flag[0:2] == "--" and "=" in flag
    )
    directory = flags.get("--config-path") or flags.get("-cp") or str(CONF)
    name = flags.get("--config-name") or flags.get("-cn") or "train"
    paths = (
        [f"hydra.searchpath=[{','.join(f'file://{path.absolute()}' for path in search_path)}]"] if search_path else []
    )
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(Path(directory).absolute()), version_base="1.3"):
            return compose(name, overrides=[*overrides, *paths])
    except (HydraException, OmegaConfBaseException, ValueError):
        return None


def _present(composed: Any, key: str) -> list[Any]:
    """A list of the configuration, its elements without the fields that hold their defaults."""
    values = OmegaConf.to_container(OmegaConf.select(composed, key), resolve=False)
    element = element_of(f"{key}.0")
    assert isinstance(values, list)
    assert element is not None
    defaults = dataclasses.asdict(element())
    return [{k: v for k, v in value.items() if k == "name" or v != defaults[k]} for value in values]
