"""Many ranges of one large file: one after the other against `read_many`, from the loopback CDN.

    python benchmarks/bench_ranged_reads.py --ranges 200 --kib 64 --delay-ms 30

Both sides run in one process, in turn, over the same sockets; the file is on this machine, so what differs is
what a request costs. `--delay-ms` lets every connection's bytes pass a relay that holds them back for that
long, as a distant CDN would; 0 goes there directly. Prints medians over the rounds, and their ratio.
"""

from __future__ import annotations

import argparse
import random
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from crawler.budget import ByteBudget
from crawler.client import HubClient
from crawler.interface import ByteSource, parse_repo_id
from crawler.remote import Location, RemoteFile
from crawler.transport import Session
from forkwatch.demo.hub import LoopbackHub

REPO = parse_repo_id("bench/large")


class Relay:
    """Forwards connections to a port; what the client sends waits before it goes on."""

    def __init__(self, port: int, delay: float) -> None:
        self._target, self._delay = port, delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for source, sink, delay in ((client, server, self._delay), (server, client, 0.0)):
                    sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._copy, args=(source, sink, delay), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, delay: float) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(delay)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class Distant(Location):
    """A file whose CDN is reached through a relay."""

    relay: Relay | None = None

    def resolve(self) -> str:
        address = urlsplit(super().resolve())
        if self.relay is not None:
            address = address._replace(netloc=f"127.0.0.1:{self.relay.port}")
        return address.geturl()


@contextmanager
def large_file(size: int, delay: float) -> Iterator[ByteSource]:
    """A file of `size` random bytes on a loopback hub whose CDN answers `delay` seconds late."""
    with tempfile.TemporaryDirectory() as folder, LoopbackHub() as hub:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(random.Random(1).randbytes(size))
        hub.create_repo(REPO)
        hub.commit(REPO, {"model.safetensors": path})
        with HubClient(endpoint=hub.endpoint, token=None, cache=Path(folder) / "cache") as client:
            snapshot = client.snapshot(REPO)
        session = Session(hub.endpoint, None, timeout=30.0, retries=0, sleep=time.sleep)
        with closing(session):
            location = Distant(session, snapshot, snapshot.files[0], ByteBudget(None))
            if delay:
                location.relay = Relay(urlsplit(hub.cdn).port or 80, delay)
            yield RemoteFile(location)


def measure(source: ByteSource, ranges: list[tuple[int, int]], rounds: int) -> tuple[float, float]:
    """Median seconds of the sequential and of the parallel reads, in turn."""
    one, many = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        expected = [source.read(offset, length) for offset, length in ranges]
        middle = time.perf_counter()
        found = source.read_many(ranges)
        many.append(time.perf_counter() - middle)
        one.append(middle - start)
        assert found == expected
    return statistics.median(one), statistics.median(many)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranges", type=int, default=200)
    parser.add_argument("--kib", type=int, default=64, help="of a range")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="by which the CDN answers late")
    options = parser.parse_args()
    length = options.kib << 10
    stride = 4 * length + (256 << 10)
    ranges = [(number * stride, length) for number in range(options.ranges)]
    with large_file(options.ranges * stride, options.delay_ms / 1000) as source:
        one, many = measure(source, ranges, options.rounds)
    megabytes = options.ranges * length / 1e6
    print(
        f"{options.ranges} ranges of {options.kib} KiB, {options.delay_ms:g} ms late, {options.rounds} rounds"
    )
    print(f"one by one  {one:7.3f} s  {megabytes / one:7.1f} MB/s")
    print(f"read_many   {many:7.3f} s  {megabytes / many:7.1f} MB/s")
    print(f"ratio       {one / many:7.2f}")


if __name__ == "__main__":
    main()
