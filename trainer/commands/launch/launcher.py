"""One launch: torchrun's arguments in, the workers' exit code out."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import uuid
from pathlib import Path
from types import FrameType

import torch.distributed.elastic.rendezvous.registry as rendezvous
from hydra import compose, initialize_config_dir
from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.launcher.api import LaunchConfig, _get_addr_and_port
from torch.distributed.run import config_from_args, parse_args

from trainer.commands.entry import register_schema, split
from trainer.commands.launch.agent import PatientAgent
from trainer.config.diagnose import CONF
from trainer.config.groups.reliability import ReliabilityConfig
from trainer.errors import ExitCode
from trainer.run.orphans import LAUNCHER
from trainer.run.output import outlive_readers
from trainer.run.signals import STOPPING, ignore_signals


def launch(arguments: list[str]) -> int:
    """Start the workers, wait for them, and return the code that says how it ended: see docs/exit_codes.md."""
    outlive_readers()
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # we say what happened, once
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun's default, without its banner
    try:
        args = parse_args(arguments)
    except SystemExit as error:  # argparse has printed what it does not understand
        return int(ExitCode.CONFIG) if error.code else int(ExitCode.DONE)
    if not args.module and not args.no_python and not Path(args.training_script).is_file():
        return complain(f"{args.training_script} is no file; give the script after torchrun's own arguments")
    if args.standalone:
        args.rdzv_backend, args.rdzv_endpoint, args.rdzv_id = "c10d", "localhost:0", str(uuid.uuid4())
    try:
        config, command, command_arguments = config_from_args(args)
    except (ValueError, AssertionError) as error:
        return complain(f"the launch's arguments do not fit together: {error}")
    assert config.logs_specs is not None  # config_from_args made it
    os.environ[LAUNCHER] = str(os.getpid())
    grace = grace_seconds(args.training_script_args)
    return run(PatientAgent(specify(config, str(command), command_arguments), config.logs_specs, grace))


def complain(text: str) -> int:
    """Say why the launch cannot start."""
    print(f"launch: {text}", file=sys.stderr, flush=True)
    return int(ExitCode.CONFIG)


def grace_seconds(script_arguments: list[str]) -> float:
    """reliability.grace_seconds of the run that is to be launched; a mistake in it is the run's to report."""
    try:
        register_schema()
        with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            composed = compose("train", overrides=split(script_arguments)[0])
        return float(composed.reliability.grace_seconds)
    except Exception:
        return ReliabilityConfig.grace_seconds


def specify(config: LaunchConfig, command: str, arguments: list[str]) -> WorkerSpec:
    """torch's description of the workers."""
    parameters = RendezvousParameters(
        backend=config.rdzv_backend,
        endpoint=config.rdzv_endpoint,
        run_id=config.run_id,
        min_nodes=config.min_nodes,
        max_nodes=config.max_nodes,
        local_addr=config.local_addr,
        **config.rdzv_configs,
    )
    address, port = _get_addr_and_port(parameters)
    return WorkerSpec(
        role=config.role,
        local_world_size=config.nproc_per_node,
        entrypoint=command,
        args=tuple(arguments),
        rdzv_handler=rendezvous.get_rendezvous_handler(parameters),
        max_restarts=config.max_restarts,
        monitor_interval=config.monitor_interval,
        master_addr=address,
        master_port=port,
        local_addr=config.local_addr,
    )


def run(agent: PatientAgent) -> int:
    """Run the agent in a thread; this one hands signals on."""
    outcome: list[RunResult | Exception] = []

    def work() -> None:
        try:
            outcome.append(agent.run())
        except Exception as error:
            outcome.append(error)
        finally:
            agent.get_worker_group().spec.rdzv_handler.shutdown()

    def hand_on(number: int, frame: FrameType | None) -> None:
        agent.stop(number)
        if not agent.started:  # still waiting for other nodes
            os._exit(int(ExitCode.PREEMPTED))

    thread = threading.Thread(target=work, name="agent", daemon=True)
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, hand_on)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    ignore_signals()
    return conclude(agent, outcome[0])


def conclude(agent: PatientAgent, outcome: RunResult | Exception) -> int:
    """The exit code, and one line on what made it."""
    if isinstance(outcome, Exception):
        print(f"launch: the workers could not be run: {type(outcome).__name__}: {outcome}", file=sys.stderr, flush=True)
        return 1
    if not outcome.is_failed():
        return int(ExitCode.DONE)
    code = agent.code(outcome)
    first = min(outcome.failures.items(), key=lambda item: item[1].timestamp)[0]
    known = {int(member): member.name for member in ExitCode}
    name = known.get(code) or (f"killed by {signal.Signals(code - 128).name}" if code > 128 else "crashed")
    print(f"launch: rank {first} ended first; exit {code} ({name})", file=sys.stderr, flush=True)
    return code
