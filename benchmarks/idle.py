"""What a runtime takes of a processor while nobody asks: of one core, in percent.

`edge-assistant serve` runs in a process of its own with an embedded Mosquitto, which counts too; it has answered a
question before, and so have the models that the other runtimes hold. All of them are idle in the same seconds. The last
line is one JSON object.

    python benchmarks/idle.py --seconds 30 --gguf build/bench/twin.gguf
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
import runtimes
from mqtt import REPLIES, ask, connected, served

OURS = "edge-assistant serve"
SETTLE_SECONDS = 3


def main() -> None:
    """Read the command line, measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/home-mini"), metavar="DIR", help="the bundle")
    parser.add_argument("--seconds", type=float, default=30, metavar="N")
    runtimes.add_options(parser)
    options = parser.parse_args()
    workers = runtimes.others(options, context=64)
    for worker in workers:
        worker.do("answer", prompt=[*range(14, 30)], count=16)
        worker.go_on()
    shares = asyncio.run(measure(options, {worker.name: worker.pid for worker in workers}))
    for worker in workers:
        worker.close()
    print(
        runtimes.report(
            "idle", workers, options, model=options.model.name, seconds=options.seconds, percent_of_a_core=shares
        )
    )


async def measure(options: argparse.Namespace, processes: dict[str, int]) -> dict[str, float]:
    """Return what each process, with its children, takes in the same idle seconds."""
    async with served(options.model.resolve()) as (port, pid):
        async with connected(port) as client:
            await client.publish("home/hall/lamp_3/meta", '{"domain": "light"}', 1, retain=True)
            await client.publish("home/hall/lamp_3/state", "on", 1, retain=True)
            await client.subscribe(REPLIES, qos=1)
            await ask(client)
        await asyncio.sleep(SETTLE_SECONDS)
        trees = {OURS: tree(pid), **{name: tree(other) for name, other in processes.items()}}
        before = {name: cpu_seconds(members) for name, members in trees.items()}
        await asyncio.sleep(options.seconds)
        return {
            name: round(100 * (cpu_seconds(members) - before[name]) / options.seconds, 3)
            for name, members in trees.items()
        }


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its children."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_seconds(members: list[psutil.Process]) -> float:
    """Return the seconds of CPU that some processes have taken, in ticks of 10 ms."""
    times = [member.cpu_times() for member in members]
    return float(sum(taken.user + taken.system for taken in times))


if __name__ == "__main__":
    main()
