"""A stand-in for the process that measures: what it does with each cell is in FAKE_GPU_CELLS."""

import json
import os
import signal
import sys
import time

MACHINE = dict(
    cpu="some CPU",
    cores=2,
    threads=2,
    gpu="some GPU",
    gpu_details=dict(name="some GPU", memory_gb=80.0, driver="570.1", mig=None),
    versions=dict(torch="9.9", mmvanilla="0.0"),
    default_tf32={"convolutions": True},
    peak_gflops=dict(fp32=50000.0),
)


def send(**event):
    print(json.dumps(event), flush=True)


def main():
    request = json.load(sys.stdin)
    machine = dict(MACHINE, **json.loads(os.environ.get("FAKE_GPU_MACHINE", "{}")))
    if os.environ.get("FAKE_GPU_STARTS") == "no":
        sys.exit(1)
    send(machine=machine)
    print("a compiler says something", file=sys.stderr)
    for name, action in json.loads(os.environ["FAKE_GPU_CELLS"]).items():
        if name in request["done"]:
            continue
        send(begin=name)
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "break":
            send(cell=name, entry=dict(not_measured="RuntimeError: illegal memory access"))
            sys.exit(3)
        elif action == "exit":
            sys.exit(9)
        elif action == "hang":
            time.sleep(600)
        elif action == "stop":
            send(end="out of time")
            return
        else:
            send(cell=name, entry=action)
    send(end="finished")


if __name__ == "__main__":
    main()
