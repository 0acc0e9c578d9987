"""The smoke test for a trn1 node: real runs of scripts/train.py, and a page of verdicts. No torch.

A dry run of the same jobs on the native backend tests everything but the device on CPU.
"""
