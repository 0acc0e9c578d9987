"""Weights as Hugging Face directories, beside training: what fails here costs no checkpoint, and no step."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from trainer.checkpoint.directory import remove, surplus
from trainer.checkpoint.names import step_of
from trainer.config.groups.checkpoint import CheckpointConfig
from trainer.data.chat.settings import template_named
from trainer.errors import ConfigError, RunError
from trainer.pretrained.export import config_of, export
from trainer.pretrained.peft.write import write_adapter
from trainer.pretrained.target import clear_abandoned
from trainer.pretrained.tokenizer_files import TOKENIZER, tokenizer_files
from trainer.run.directory import RunDirectory

Say = Callable[[str], object]


class Exports:
    """Of one launch, on rank 0. One at a time: a save that comes while one is being written is passed over."""

    def __init__(self, config: CheckpointConfig, directory: RunDirectory, steps: int, say: Say = print) -> None:
        """steps: length of training. say: takes a line for people."""
        self._config, self._run, self._steps, self._say = config, directory, steps, say
        self._thread: threading.Thread | None = None
        self._passed: Path | None = None
        self._latest: Path | None = None

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint has been committed. Never waits."""
        if self._config.export_hf == "last" and step_of(checkpoint) < self._steps:
            self._latest = checkpoint
            return
        if self._thread is not None and self._thread.is_alive():
            self._passed = checkpoint
            return
        self._passed = self._latest = None
        # A daemon: a process that fails must be able to end, and what it leaves the next export clears away.
        self._thread = threading.Thread(target=self._export, args=(checkpoint,), name="export", daemon=True)
        self._thread.start()

    def complete(self) -> None:
        """Training has ended, before its schedule perhaps: the newest checkpoint is the last."""
        self._passed = self._passed or self._latest

    def finish(self) -> None:
        """Wait until the newest checkpoint that is to be exported, is."""
        if self._thread is not None:
            self._thread.join()
        if self._passed is not None:
            self._export(self._passed)

    def _export(self, checkpoint: Path) -> None:
        target = self._run.exports / checkpoint.name
        try:
            if target.exists():  # of a launch that was killed, and has been caught up with
                remove(target)
            target.parent.mkdir(exist_ok=True)
            clear_abandoned(target.parent)
            kept = self._run.tokenizer
            files = tokenizer_files(kept) if (kept / TOKENIZER).is_file() else None
            if (config := config_of(checkpoint)).adapter.kind == "none":
                export(checkpoint, target, tokenizer=files, hashes=False)
            else:
                write_adapter(checkpoint, config, target, files)  # the base is where it was
            for old in surplus(target.parent, step_of(target), self._config.keep, self._config.keep_every):
                remove(old)
            self._say(f"  exported {target}")
        except RunError as error:
            why = "; ".join(f"{one.key} = {one.value!r} ({one.rule})" for one in error.problems)
            self._say(f"  {checkpoint.name} was not exported: {why}")
        except OSError as error:
            self._say(f"  {checkpoint.name} was not exported: {error}")
        except Exception:
            self._say(f"  {checkpoint.name} was not exported, by a mistake of this program:\n{traceback.format_exc()}")


def keep_tokenizer(
    directory: RunDirectory, file: Path | None, eod: str, say: Say = print, template: str | None = None
) -> None:
    """Put the run's tokenizer beside its checkpoints, in the form that goes along with exports. For rank 0 alone.

    file: the tokenizer.json that it was read from. template: data.chat_template, which conversations were written by:
    it goes along in the place of the tokenizer's own. What cannot be done is said: training needs none of it.
    """
    if file is None:
        return
    try:
        files = tokenizer_files(file, eod)
        if template is not None:
            files = tokenizer_files(file, eod, template_named(template, files.templates)[1])
        directory.tokenizer.mkdir(exist_ok=True)
        files.write(directory.tokenizer)
        for note in files.notes:
            say(f"  tokenizer: {note}")
    except ConfigError as error:
        problem = error.problems[0]
        say(f"  the tokenizer will not go along with exports: {problem.key} = {problem.value!r} ({problem.rule})")
    except OSError as error:
        say(f"  the tokenizer will not go along with exports: {error}")
