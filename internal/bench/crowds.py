"""Crowds of callers that do little, and what memory a proxy needs for them."""
import contextlib
import resource
import socket
import time

from processes import memory_mib
from testbed import HOST, MIB, connect, read_body, read_head, request

IDLE_FOR = 6     # seconds before a crowd is measured: programs may give memory back, but not at once
SETTLED_IN = 2   # seconds after what was before
AT_A_TIME = 50   # callers that want something in the same moment, while a crowd gathers
SPARE = 200      # descriptors that we need besides those of callers


class Crowd:
    def __init__(self, gather, option, title):
        self.gather = gather  # f(port, count, stack) brings count callers into place; the stack closes them
        self.option = option  # says how many
        self.title = title


def in_batches(port, count, stack):
    done = 0
    while done < count:
        batch = [stack.enter_context(contextlib.closing(connect(port))) for _ in range(min(AT_A_TIME, count - done))]
        done += len(batch)
        yield batch


def idle(port, count, stack):
    """Each keeps its connection open after one request."""
    for batch in in_batches(port, count, stack):
        for s in batch:
            s.sendall(request("GET", "/"))
        for s in batch:
            read_body(s, *read_head(s))


def at_once(port, count, stack):
    """All have a request in progress at the same moment, so that each needs a connection to the upstream; then all idle."""
    body = b"0123456789"
    callers = []
    for batch in in_batches(port, count, stack):
        for s in batch:
            s.sendall(request("POST", "/sink", f"Content-Length: {len(body)}") + body[:-1])
        callers += batch
    time.sleep(1)  # so that the last of them have a connection, too
    for s in callers:
        s.sendall(body[-1:])
    for s in callers:
        read_body(s, *read_head(s))


def stalled_downloads(port, count, stack):
    """Each asks for a large body and reads only its head."""
    done = 0
    while done < count:
        batch = []
        for _ in range(min(AT_A_TIME, count - done)):
            s = stack.enter_context(contextlib.closing(socket.socket()))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
            s.settimeout(20)
            s.connect((HOST, port))
            s.sendall(request("GET", "/large"))
            batch.append(s)
        for s in batch:
            s.recv(1)
        done += len(batch)


def stalled_uploads(port, count, stack):
    """Each sends the beginning of a body and leaves it at that."""
    for batch in in_batches(port, count, stack):
        for s in batch:
            s.sendall(request("POST", "/sink", f"Content-Length: {MIB}") + bytes(200 << 10))


CROWDS = {
    "memory": [Crowd(idle, "idle", "{:,} idle callers")],
    "idle10k": [Crowd(idle, "idle_many", "{:,} idle callers")],
    "upstream1k": [Crowd(at_once, "upstreams", "{:,} idle callers, and as many idle connections to the upstream")],
    "slow": [Crowd(stalled_downloads, "slow", "{:,} callers who do not read their large responses"),
             Crowd(stalled_uploads, "slow", "{:,} callers who do not finish their large requests")],
}


def memory_with(crowd, proxy, options):
    """(PSS, RSS) in MiB before and while the crowd is there."""
    count = getattr(options, crowd.option)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + SPARE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + SPARE, hard), hard))
    time.sleep(SETTLED_IN)
    before = memory_mib(proxy.process.pids())
    with contextlib.ExitStack() as stack:
        crowd.gather(proxy.port, count, stack)
        time.sleep(IDLE_FOR)
        return before, memory_mib(proxy.process.pids())
