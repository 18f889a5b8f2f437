"""Apache Kafka in KRaft mode: one broker, a cluster of three, or one that asks for TLS and a password. And one that is too
old for the library, with its ZooKeeper."""

import base64
import os
import pathlib
import shutil
import socket
import struct
import subprocess

from . import process
from .certificates import make_certificates

VERSION = "4.3.1"
OLD_VERSION = "2.7.2"
VARIANTS = ("single", "cluster", "secure", "old")
USERS = {"alice": "alice-secret", "bob": "bob-secret"}

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>maestro</groupId> <artifactId>kafka-broker</artifactId> <version>1</version> <packaging>pom</packaging>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
DEPENDENCY = "    <dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"

LOG4J = """rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1}: %m%n
"""


def version_of(variant):
    return OLD_VERSION if variant == "old" else VERSION


def home(variant, cache):
    return cache / f"kafka-{version_of(variant)}"


def dependencies_of(variant):
    needs = [("org.apache.kafka", "kafka_2.13", version_of(variant))]
    if variant == "old":
        needs.append(("org.slf4j", "slf4j-simple", "1.7.30"))
    else:
        needs.append(("org.apache.kafka", "kafka-tools", VERSION))
    return "\n".join(DEPENDENCY.format(*each) for each in needs)


def install(variant, cache, say):
    """Kafka and what it needs, through Maven, once."""
    there = home(variant, cache)
    lib = there / "lib"
    if lib.is_dir():
        return
    for tool in ("java", "mvn"):
        if not shutil.which(tool):
            raise SystemExit(f"scripts/brokers: {tool} is missing; scripts/bootstrap installs it")
    say(f"fetching Kafka {version_of(variant)} through Maven (once)")
    there.mkdir(parents=True, exist_ok=True)
    (there / "pom.xml").write_text(POM.format(dependencies=dependencies_of(variant)))
    part = there / f"lib.{os.getpid()}"
    done = subprocess.run(["mvn", "-B", "-q", "-f", str(there / "pom.xml"), "dependency:copy-dependencies",
                           f"-DoutputDirectory={part}", "-DincludeScope=runtime"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0 or not part.is_dir():
        raise SystemExit(f"scripts/brokers: Maven could not fetch Kafka {version_of(variant)}:\n{done.stdout[-3000:]}")
    part.rename(lib)


# Room for what a broker makes in ten seconds under load: each collection stops it for 20 ms, and with the JVM's own choice of a
# young generation there was one every three seconds, which was all of a client's p99.
BROKER_HEAP = ("-Xms768m", "-Xmx768m", "-Xmn512m")


def java(main, *arguments, heap=("-Xms64m", "-Xmx256m")):
    return ["java", *heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=4", "-Xshare:auto", "-Djava.awt.headless=true", main,
            *arguments]


def secure_properties(data, ports):
    """Listeners: SASL over TLS; one whose certificate has expired; one that asks the client for a certificate."""
    tls = data / "tls"
    plain = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
    modules = "org.apache.kafka.common.security"
    return {
        "listeners": f"PLAINTEXT://127.0.0.1:{ports[0]},CONTROLLER://127.0.0.1:{ports[1]},SASL_SSL://127.0.0.1:{ports[2]},"
                     f"EXPIRED://127.0.0.1:{ports[3]},SSL://127.0.0.1:{ports[4]}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{ports[0]},SASL_SSL://127.0.0.1:{ports[2]},"
                                f"EXPIRED://127.0.0.1:{ports[3]},SSL://127.0.0.1:{ports[4]}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,EXPIRED:SSL,SSL:SSL",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": tls / "server.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": tls / "ca.pem",
        "listener.name.expired.ssl.keystore.type": "PEM",
        "listener.name.expired.ssl.keystore.location": tls / "expired.pem",
        "listener.name.ssl.ssl.client.auth": "required",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{modules}.plain.PlainLoginModule required {plain};",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{modules}.scram.ScramLoginModule required;",
    }


def write_node(variant, folder, number, nodes, ports):
    voters = ",".join(f"{n + 1}@127.0.0.1:{ports[n][1]}" for n in range(nodes))
    replicas = min(nodes, 3)
    properties = {
        "process.roles": "broker,controller",
        "node.id": number + 1,
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        # Whoever asks at the third port is told to come to the fourth, where a test may put something between.
        "listeners": f"PLAINTEXT://127.0.0.1:{ports[number][0]},CONTROLLER://127.0.0.1:{ports[number][1]},"
                     f"GATED://127.0.0.1:{ports[number][2]}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{ports[number][0]},GATED://127.0.0.1:{ports[number][3]}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GATED:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": folder / "data",
        "default.replication.factor": replicas,
        "min.insync.replicas": max(1, replicas - 1),
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": max(1, replicas - 1),
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": max(1, replicas - 1),
        "group.initial.rebalance.delay.ms": 0,
        # The library makes the topics that it needs; with this off it is seen to.
        "auto.create.topics.enable": "false",
        "delete.topic.enable": "true",
    }
    if variant == "secure":
        properties.update(secure_properties(folder.parent, ports[number]))
    folder.mkdir()
    (folder / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    (folder / "log4j2.properties").write_text(LOG4J)


def brokers_seen(port):
    """How many brokers the server names in its answer to a metadata request (version 1, no topics)."""
    client = b"maestro"
    body = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        stream = connection.makefile("rb")
        size = struct.unpack(">i", stream.read(4))[0]
        return struct.unpack(">i", stream.read(size)[4:8])[0]


def start_old(data, cache, started):
    """One broker of the old version, which keeps what it knows in a ZooKeeper."""
    classpath = {"CLASSPATH": str(home("old", cache) / "lib" / "*")}
    at, zookeeper = process.free_ports(2)
    keeper = {"dataDir": data / "zookeeper", "clientPort": zookeeper, "clientPortAddress": "127.0.0.1",
              "admin.enableServer": "false"}
    broker = {"broker.id": 1, "listeners": f"PLAINTEXT://127.0.0.1:{at}", "zookeeper.connect": f"127.0.0.1:{zookeeper}",
              "log.dirs": data / "data", "offsets.topic.replication.factor": 1}
    processes = []
    for name, main, properties in (("zookeeper", "org.apache.zookeeper.server.quorum.QuorumPeerMain", keeper),
                                   ("server", "kafka.Kafka", broker)):
        (data / f"{name}.properties").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        processes.append(process.spawn(java(main, str(data / f"{name}.properties")), data / f"{name}.log", classpath))
        started(processes[-1])
    process.wait_until(lambda: brokers_seen(at) == 1, processes, 90, "Kafka")
    return f"kafka://127.0.0.1:{at}", {}


def start(variant, data, cache, started):
    if variant == "old":
        return start_old(data, cache, started)
    nodes = 3 if variant == "cluster" else 1
    flat = process.free_ports(5 * nodes)
    ports = [flat[5 * n:5 * n + 5] for n in range(nodes)]
    classpath = {"CLASSPATH": str(home(variant, cache) / "lib" / "*")}
    if variant == "secure":
        make_certificates(data / "tls")
    cluster_id = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=").replace("-", "a")
    scram = [f"--add-scram=SCRAM-SHA-512=[name={name},password={password}]" for name, password in USERS.items()]
    formats = []
    folders = [data / f"node-{n + 1}" for n in range(nodes)]
    for n, folder in enumerate(folders):
        write_node(variant, folder, n, nodes, ports)
        formats.append(process.spawn(
            java("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(folder / "server.properties"),
                 *(scram if variant == "secure" else [])),
            folder / "format.log", classpath))
    for each in formats:
        if each.wait(timeout=60) != 0:
            raise RuntimeError("formatting the storage failed")
    brokers = []
    for folder in folders:
        brokers.append(process.spawn(
            java(f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}", "kafka.Kafka",
                 str(folder / "server.properties"), heap=BROKER_HEAP),
            folder / "server.log", classpath))
        started(brokers[-1])
    for own in ports:
        process.wait_until(lambda: brokers_seen(own[0]) == nodes, brokers, 90, "Kafka")  # noqa: B023
    if variant != "secure":
        return "kafka://" + ",".join(f"127.0.0.1:{own[0]}" for own in ports), {
            "KAFKA_BEHIND_GATE": str(ports[0][2]),
            "KAFKA_GATE": str(ports[0][3]),
        }
    tls = data / "tls"
    user, password = next(iter(USERS.items()))
    return f"kafka://127.0.0.1:{ports[0][2]}", {
        "KAFKA_CA": str(tls / "ca.pem"),
        "KAFKA_OTHER_CA": str(tls / "other-ca.pem"),
        "KAFKA_CLIENT_CERTIFICATE": str(tls / "client.crt"),
        "KAFKA_CLIENT_KEY": str(tls / "client.key"),
        "KAFKA_USERNAME": user,
        "KAFKA_PASSWORD": password,
        "KAFKA_EXPIRED": f"127.0.0.1:{ports[0][3]}",
        "KAFKA_MUTUAL_TLS": f"127.0.0.1:{ports[0][4]}",
        "KAFKA_PLAINTEXT": f"127.0.0.1:{ports[0][0]}",
    }
