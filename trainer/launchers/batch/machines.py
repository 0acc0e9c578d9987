"""The launch template of the machines: EFA on every network card, and time to save. Made once, for an environment.

AWS Batch has no field for either: a job definition passes on the devices that its machine has, and the ECS agent on the
machine kills what does not end within its own 30 s.
"""

from __future__ import annotations

import base64
from math import ceil
from typing import Any

from trainer.config.groups.launcher import LauncherConfig
from trainer.launchers.container import ENDING_SECONDS
from trainer.launchers.request import Request
from trainer.trainium.topology import instance_of

NAME = "trainer-efa"
_BOUNDARY = "==TRAINER=="


def launch_template(request: Request, launcher: LauncherConfig) -> dict[str, Any] | None:
    """For EC2's create_launch_template; None where the kind of machine has no EFA."""
    instance = instance_of(launcher.batch.instance, 0)
    if instance is None or not instance.efa:
        return None
    groups = {"Groups": [*launcher.batch.security_groups]} if launcher.batch.security_groups else {}
    cards = [
        {"NetworkCardIndex": card, "DeviceIndex": min(card, 1), "InterfaceType": "efa", **groups}
        for card in range(instance.efa)
    ]
    user_data = base64.b64encode(_user_data(ceil(request.grace_seconds) + ENDING_SECONDS).encode()).decode()
    return {
        "LaunchTemplateName": NAME,
        "LaunchTemplateData": {"NetworkInterfaces": cards, "UserData": user_data},
    }


def _user_data(seconds: int) -> str:
    """MIME, as Batch wants it: it adds a part of its own."""
    return "\n".join(
        [
            "MIME-Version: 1.0",
            f'Content-Type: multipart/mixed; boundary="{_BOUNDARY}"',
            "",
            f"--{_BOUNDARY}",
            'Content-Type: text/x-shellscript; charset="us-ascii"',
            "",
            "#!/bin/bash",
            f"echo ECS_CONTAINER_STOP_TIMEOUT={seconds}s >> /etc/ecs/ecs.config",
            "",
            f"--{_BOUNDARY}--",
            "",
        ]
    )
