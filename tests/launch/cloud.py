#!/usr/bin/env python3
"""Stands in for gcloud, xpk, kubectl, srun, scontrol, sbatch and sky: records calls and answers as these would.

The world is a JSON file named by WORLD:
  lives: for each slice that is created one after the other, what `describe` says each time it is asked (the last state
    stays), and what its workers say each time: {"states": […], "workers": […]}.
  calls: every argv so far.
  broken: text that gcloud fails with, whatever it is asked.
  code: exit code of srun.
  queues: what `sky jobs queue` prints each time it is asked; the last one stays.
"""

import json
import os
import sys
from pathlib import Path

world_file = Path(os.environ["WORLD"])
world = json.loads(world_file.read_text())
words = [Path(sys.argv[0]).name, *sys.argv[1:]]
world["calls"].append(words)
life = world["lives"][0] if world.get("alive") else None


def leave(code: int = 0, out: str = "", err: str = "") -> None:
    world_file.write_text(json.dumps(world))
    if out:
        print(out)
    if err:
        print(err, file=sys.stderr)
    sys.exit(code)


def next_of(queue: list[str]) -> str:
    return queue.pop(0) if len(queue) > 1 else queue[0]


if words[:3] == ["sky", "jobs", "queue"]:
    leave(out=next_of(world["queues"]))
if words[0] == "sbatch":
    leave(out=str(100 + sum(call[0] == "sbatch" for call in world["calls"])))
if words[0] != "gcloud":
    leave(world.get("code", 0) if words[0] == "srun" else 0)
if world.get("broken"):
    leave(1, err=world["broken"])
what = " ".join(word for word in words if not word.startswith("-"))
if "queued-resources create" in what:
    if life:
        leave(1, err="ERROR: (gcloud.compute.tpus.queued-resources.create) ALREADY_EXISTS: the resource is there")
    world["alive"] = True
    leave()
if "queued-resources describe" in what:
    if life is None:
        leave(1, err="ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource was not found")
    leave(out=next_of(life["states"]))
if "queued-resources delete" in what:
    if life is None:
        leave(1, err="ERROR: (gcloud.compute.tpus.queued-resources.delete) NOT_FOUND: Resource was not found")
    if life["states"][0] == "ACTIVE" and "--force" not in words:
        leave(1, err="ERROR: FAILED_PRECONDITION: the queued resource is ACTIVE; use --force")
    world["lives"].pop(0)
    world["alive"] = False
    leave()
if "tpu-vm ssh" in what or "tpu-vm scp" in what:
    if life is None:
        leave(1, err="ERROR: (gcloud.compute.tpus.tpu-vm.ssh) NOT_FOUND: Resource was not found")
    asked = next((word for word in words if word.startswith("--command=")), "")
    leave(out=next_of(life["workers"]) if asked.startswith("--command=cat lema_jax/exit_code") else "")
leave()
