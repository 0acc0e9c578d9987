"""Paths in the configuration: a leading ~ is a home directory."""

from __future__ import annotations

import os
from dataclasses import replace

from trainer.config.schema import Config


def expanded(path: str) -> str:
    """The path with its ~ or ~user spelt out; an unknown user's stays as it is."""
    return os.path.expanduser(path)  # noqa: PTH111 - a Path raises for an unknown user, and makes s3:/b of s3://b


def at_home(config: Config) -> Config:
    """The configuration with every path expanded.

    A huggingface source may name a data set instead of a directory: no such name begins with ~.
    """
    data, tokenizer = config.data, config.data.tokenizer
    sources = [replace(source, paths=[expanded(path) for path in source.paths]) for source in data.sources]
    path = None if tokenizer.path is None else expanded(tokenizer.path)
    source = None if config.model.init_from is None else expanded(config.model.init_from)
    adapter = None if config.adapter.init_from is None else expanded(config.adapter.init_from)
    local = replace(config.launcher.local, register=expanded(config.launcher.local.register))
    return replace(
        config,
        run=replace(config.run, root=expanded(config.run.root)),
        model=replace(config.model, init_from=source),
        adapter=replace(config.adapter, init_from=adapter),
        data=replace(
            data,
            sources=sources,
            tokenizer=replace(tokenizer, path=path),
            cache_dir=expanded(data.cache_dir),
        ),
        launcher=replace(config.launcher, local=local),
    )
