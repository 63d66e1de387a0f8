"""W&B's agent for `wandb_sweep`, which starts this as a process of its own."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import wandb


def main(hear_fd: int, say_fd: int) -> None:
    """Make or take up a sweep, and hand each of its trials on."""
    hear = os.fdopen(hear_fd)
    tell = os.fdopen(say_fd, "w", buffering=1)

    def say(message: dict[str, Any]) -> None:
        tell.write(json.dumps(message) + "\n")

    order = json.loads(hear.readline())
    place = {"entity": order["entity"], "project": order["project"]}
    sweep_id = order["sweep_id"] or wandb.sweep(order["config"], **place)
    say({"sweep_id": sweep_id})

    def trial() -> None:
        run = wandb.init(settings=wandb.Settings(console="off", silent=True, x_disable_stats=True))
        say({"run_id": run.id, "params": dict(run.config)})
        code = None
        try:
            for line in hear:
                message = json.loads(line)
                if "code" in message:
                    code = message["code"]
                    break
                run.log(message["log"])
        except BaseException:  # The agent raises in this thread what its server wants stopped.
            say({"stopped": run.id})
            raise
        finally:
            while code is None and (line := hear.readline()):
                code = json.loads(line).get("code")
            run.finish(exit_code=code if code is not None else 1)

    wandb.agent(sweep_id, function=trial, count=order["count"], **place)
    say({"end": True})


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
