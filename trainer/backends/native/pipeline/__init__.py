"""Pipeline parallelism over torch.distributed.pipelining."""
