"""Shared by all tests: offline, quiet, and few threads, so that 2 cores serve several processes."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
