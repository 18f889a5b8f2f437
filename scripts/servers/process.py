"""Processes that outlive the script that started them, and free ports."""

import os
import pathlib
import signal
import socket
import subprocess
import time


def free_ports(count):
    """Ports of 127.0.0.1 that nobody listens on."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


begun = []  # by this script, whether or not it was written down yet


def spawn(command, log, environment=None):
    """Starts the command in a session of its own; what it prints goes into `log`."""
    with open(log, "ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                                   env={**os.environ, **(environment or {})})
    begun.append(process)
    process.begun_with = {"command": [str(each) for each in command], "log": str(log), "environment": environment or {}}
    return process


def started_at(pid):
    """When the process began, in ticks: with it a pid that the system gave to another is told apart."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def describe(process):
    return {"pid": process.pid, "started": started_at(process.pid), **process.begun_with}


def is_alive(description):
    return description["started"] is not None and started_at(description["pid"]) == description["started"]


def send(description, what):
    """The signal, only to the process that was described; SIGKILL is waited for."""
    if not is_alive(description):
        raise SystemExit(f"process {description['pid']} is gone")
    os.kill(description["pid"], what)
    while what == signal.SIGKILL and is_alive(description):
        time.sleep(0.01)


def again(description):
    """Starts what was described once more, on the same data and ports."""
    if is_alive(description):
        raise SystemExit(f"process {description['pid']} runs")
    return describe(spawn(description["command"], description["log"], description["environment"]))


def end_begun():
    """Ends all that `spawn` began and that runs still."""
    for each in begun:
        if each.poll() is None:
            each.kill()
            each.wait()


def end(description, patience=5.0):
    """SIGTERM, and SIGKILL when that does not help; only to the process that was described."""
    for what, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, patience)):
        if not is_alive(description):
            return
        os.kill(description["pid"], signal.SIGCONT)
        os.kill(description["pid"], what)
        until = time.monotonic() + wait
        while is_alive(description) and time.monotonic() < until:
            time.sleep(0.05)


def wait_until(answers, processes, seconds, what):
    """Waits for `answers()`; raises when a process ends or the time runs out."""
    until = time.monotonic() + seconds
    while True:
        for each in processes:
            if each.poll() is not None:
                raise RuntimeError(f"{what} ended with status {each.returncode}")
        try:
            if answers():
                return
        except OSError:
            pass
        if time.monotonic() > until:
            raise RuntimeError(f"{what} did not answer within {seconds} s")
        time.sleep(0.1)
