"""Checkpoints: safetensors and JSON, written through torch.distributed.checkpoint's planner, never pickled.

Read directory.py (what is on disk), save.py (the commit), load.py (reading back), then boxed.py and storage.py
(how DCP's planner sees boxes).
"""
