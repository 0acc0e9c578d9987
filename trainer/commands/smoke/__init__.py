"""What to run on the day a trn1 is at hand: real runs of scripts/train.py, and a page of verdicts. No torch.

Everything but the device is tested on CPU, by a dry run of the same jobs on the native backend.
"""
