"""One launch: torchrun's arguments in, the workers' exit code out."""

from __future__ import annotations

import logging
import os
import signal
import threading
import uuid
from pathlib import Path
from types import FrameType

import torch.distributed.elastic.rendezvous.registry as rendezvous
from torch.distributed import DistError
from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec
from torch.distributed.elastic.rendezvous import RendezvousError, RendezvousParameters
from torch.distributed.launcher.api import LaunchConfig, _get_addr_and_port
from torch.distributed.run import config_from_args, parse_args

from trainer.commands.launch.agent import PatientAgent, say
from trainer.commands.launch.asked import read
from trainer.commands.launch.conclude import conclude, conclude_without_workers
from trainer.commands.launch.meeting import Meeting
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
    if config.rdzv_backend == "c10d" and config.max_nodes > 1 and not config.rdzv_endpoint:
        return complain("several nodes meet at the first one's address: add --rdzv_endpoint HOST:29500")
    assert config.logs_specs is not None  # config_from_args made it
    os.environ[LAUNCHER] = str(os.getpid())
    asked = read(args.training_script, args.training_script_args)
    try:
        meeting = meet(config)
        spec = specify(config, meeting, str(command), command_arguments)
    except ValueError as error:
        return complain(f"the launch's arguments do not fit together: {error}")
    except (RendezvousError, DistError) as error:
        return conclude_without_workers(error, config.rdzv_endpoint)
    agent = PatientAgent(spec, config.logs_specs, meeting, asked.grace_seconds)
    return conclude(agent, run(agent), asked.directory)


def complain(text: str) -> int:
    """Say why the launch cannot start."""
    say(text)
    return int(ExitCode.CONFIG)


def meet(config: LaunchConfig) -> Meeting:
    """The rendezvous. Raises RendezvousError when its store cannot be reached, ValueError for impossible arguments."""
    return Meeting(rendezvous.get_rendezvous_handler(_parameters(config)), config.rdzv_endpoint)


def _parameters(config: LaunchConfig) -> RendezvousParameters:
    return RendezvousParameters(
        backend=config.rdzv_backend,
        endpoint=config.rdzv_endpoint,
        run_id=config.run_id,
        min_nodes=config.min_nodes,
        max_nodes=config.max_nodes,
        local_addr=config.local_addr,
        **config.rdzv_configs,
    )


def specify(config: LaunchConfig, meeting: Meeting, command: str, arguments: list[str]) -> WorkerSpec:
    """torch's description of the workers. Raises ValueError for impossible arguments."""
    address, port = _get_addr_and_port(_parameters(config))
    return WorkerSpec(
        role=config.role,
        local_world_size=config.nproc_per_node,
        entrypoint=command,
        args=tuple(arguments),
        rdzv_handler=meeting,
        max_restarts=config.max_restarts,
        monitor_interval=config.monitor_interval,
        master_addr=address,
        master_port=port,
        local_addr=config.local_addr,
    )


def run(agent: PatientAgent) -> RunResult | Exception | None:
    """Run the agent in a thread; this one hands signals on. None where this node was not needed."""
    outcome: list[RunResult | Exception | None] = []

    def work() -> None:
        try:
            outcome.append(agent.run())
        except Exception as error:
            outcome.append(error)
        finally:
            agent.meeting.shutdown()

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
    return outcome[0]
