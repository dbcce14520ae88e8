"""What is asked of every proxy, and how one measurement of it is taken."""
import os
import re
import time

from crowds import CROWDS
from processes import cpu_seconds, machine_seconds, own_seconds, run_tool
from testbed import HOST, MIB, connect, content_length, read_body, read_head, request

BLOCK = 256 * 1024


class Workload:
    def __init__(self, upstream, measure, title):
        self.upstream = upstream  # which port of the upstream
        self.measure = measure    # f(port, options, cpus, folder) -> a dict with n, rate, errors and maybe p50, p99; None for CROWDS
        self.title = title
        self.bulk = measure in (download, upload)


def wrk(port, options, cpus, _folder, more=()):
    argv = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "--timeout", "5s", "--latency", *more]
    out = run_tool(argv + [f"http://{HOST}:{port}/"], cpus, options.seconds + 30)
    n, wall = re.search(r"(\d+) requests in ([\d.]+\w+),", out).groups()
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    percentile = {p: in_seconds(re.search(rf"(?m)^\s*{p}%\s+(\S+)\s*$", out).group(1)) for p in (50, 99)}
    return dict(n=int(n), rate=int(n) / in_seconds(wall), p50=percentile[50], p99=percentile[99],
                errors=sum(map(int, errors.groups() if errors else ())) + int(bad.group(1) if bad else 0))


def wrk_post(port, options, cpus, folder):
    script = os.path.join(folder, "post.lua")
    with open(script, "w") as f:
        f.write('wrk.method = "POST"\nwrk.body = string.rep("x", 512)\nwrk.headers["Content-Type"] = "application/octet-stream"\n')
    return wrk(port, options, cpus, folder, ("-s", script))


def wrk_connecting(port, options, cpus, folder):
    return wrk(port, options, cpus, folder, ("-H", "Connection: close"))


def paced(port, options, cpus, folder):
    """A fixed rate, the same for all, so that latencies can be compared."""
    log = os.path.join(folder, "h2load.log")
    per_connection = options.rate / options.rate_connections
    run_tool(["h2load", "--h1", "-t1", f"-c{options.rate_connections}", f"--rps={per_connection:g}", "-D", str(options.seconds),
              f"--log-file={log}", f"http://{HOST}:{port}/"], cpus, options.seconds + 30)
    latencies, errors = [], 0
    with open(log) as f:
        for line in f:
            _start, status, microseconds = line.split()[:3]
            if status == "200":
                latencies.append(int(microseconds) / 1e6)
            else:
                errors += 1
    os.unlink(log)
    if not latencies:
        raise RuntimeError("no request succeeded")
    latencies.sort()
    n = len(latencies)
    return dict(n=n, rate=n / options.seconds, errors=errors, p50=latencies[n // 2], p99=latencies[n * 99 // 100])


def download(port, options, cpus, _folder):
    buffer = bytearray(BLOCK)

    def one(s):
        s.sendall(request("GET", "/large"))
        head, rest = read_head(s)
        expect_200(head)
        left = content_length(head) - len(rest)
        while left > 0:
            n = s.recv_into(buffer, min(left, BLOCK))
            if n == 0:
                raise RuntimeError(f"the download ended {left} bytes early")
            left -= n
    return bulk(port, options, cpus, one)


def upload(port, options, cpus, _folder):
    block, size = os.urandom(BLOCK), options.body_mib * MIB

    def one(s):
        s.sendall(request("POST", "/sink", f"Content-Length: {size}"))
        for _ in range(size // BLOCK):
            s.sendall(block)
        head, rest = read_head(s)
        expect_200(head)
        read_body(s, head, rest)
    return bulk(port, options, cpus, one)


def bulk(port, options, cpus, one):
    """Large bodies one after another on one connection; n counts GiB."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        start = time.monotonic()
        with connect(port) as s:
            for _ in range(options.bodies):
                one(s)
        wall = time.monotonic() - start
    finally:
        os.sched_setaffinity(0, before)
    mib = options.bodies * options.body_mib
    return dict(n=mib / 1024, rate=mib / wall, errors=0)


def expect_200(head):
    if not head.startswith("HTTP/1.1 200 "):
        raise RuntimeError("the answer was " + head.splitlines()[0])


def in_seconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]


WORKLOADS = {
    "get1k": Workload("kept", wrk, "GET of 1 KiB, as fast as it goes"),
    "post512": Workload("kept", wrk_post, "POST of 512 B answered with 1 KiB, as fast as it goes"),
    "connect": Workload("kept", wrk_connecting, "GET of 1 KiB, each on a connection of its own from the caller"),
    "latency": Workload("kept", paced, "GET of 1 KiB at a fixed rate"),
    "download": Workload("kept", download, "large responses, one at a time"),
    "upload": Workload("kept", upload, "large requests, one at a time"),
    "handshake": Workload("closed", wrk, "a full mutual TLS handshake for each GET"),
    "resume": Workload("resumed", wrk, "a connection for each GET, TLS sessions resumed where the proxy does"),
    **{name: Workload("kept", None, "memory") for name in CROWDS},
}


def measure(workload, proxy, upstream, options, cpus, folder):
    """One measurement: the workload's own figures, and cpu (microseconds a request, or seconds a GiB), busy (of one CPU) and
    others, the share of the machine that neither we nor proxy nor upstream used but somebody did."""
    def clocks():
        pids = proxy.process.pids()
        ours = own_seconds() + cpu_seconds(pids) + cpu_seconds(upstream.process.pids())
        return time.monotonic(), cpu_seconds(pids), ours, machine_seconds()
    wall0, cpu0, ours0, (busy0, stolen0) = clocks()
    result = workload.measure(proxy.port, options, cpus, folder)
    wall1, cpu1, ours1, (busy1, stolen1) = clocks()
    wall, cpu = wall1 - wall0, cpu1 - cpu0
    if result["n"] == 0:
        raise RuntimeError("nothing was completed")
    foreign = (busy1 - busy0) - (ours1 - ours0) + (stolen1 - stolen0)
    result.update(cpu=cpu / result["n"] * (1 if workload.bulk else 1e6), busy=cpu / wall, others=max(0, foreign / wall / os.cpu_count()))
    return result
