"""What features of ours cost: one build, a configuration for each feature, and the differences to one with none of them."""
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time

from processes import Process, cpu_seconds, machine_seconds, own_seconds, run_tool
from tables import median, print_table
from testbed import HOST, UPSTREAM_NAME, Upstream, free_port

# What every configuration of a run has. Limits that would refuse the load are raised, and as many connections kept as there
# are callers, so that no exchange pays for a handshake.
COMMON = """
[identity.default]
certificate = "{folder}/client.crt"
key = "{folder}/client.key"
[trust.default]
ca = "{folder}/ca.crt"
[limits]
max_connections = 10000
max_concurrent_requests = 10000
[admin]
address = ""
socket = "{own}/admin.sock"
"""

# Nothing that can be done without. A feature replaces one of these tables, or adds one.
BARE = {
    "upstream.default": 'url = "https://{host}:{upstream}"\nserver_name = "{name}"\nvia = false',
    "upstream.default.pool": "max_idle = 256",
    "upstream.default.retry": "attempts = 0",
    "upstream.default.circuit_breaker": "failure_ratio = 1.0",
    "listener.http": 'address = "{listen}"\nbrowser_requests = "allow"',
    "[route]": 'path_prefix = "/"\nrewrite_location = false',
    "rate_limit": "requests_per_second = 0",
    "security_headers": "enabled = false",
    "log": 'format = "json"\naccess = "off"',
}

PLENTY = "requests_per_second = 10000000\nburst = 10000000\n"
ENDPOINTS = 'urls = ["https://127.0.0.1:{upstream}", "https://127.0.0.2:{upstream}", "https://127.0.0.3:{upstream}"]\n' \
            'server_name = "{name}"\nvia = false\n'
LISTENER = 'address = "{listen}"\n'
OFF = None  # in the place of a table: what the program does without it


class Feature:
    """A row: its title, the tables that it sets, and what has to be there for it."""

    def __init__(self, title, tables, *needs):
        self.title, self.tables, self.needs = title, tables, needs

    def configuration(self, places):
        tables = {**BARE, **self.tables}
        text = COMMON + "".join(f"[{table}]\n{keys}\n" for table, keys in tables.items() if keys is not OFF)
        return text.format_map(places)


def edits(side):
    return {"[route]": BARE["[route]"] + f'\n{side}.set.X-Set = "a value"\n{side}.add.X-Added = "a value"\n{side}.remove = ["X-Key"]'}


def log(access, format="json", more=""):
    return {"log": f'format = "{format}"\naccess = "{access}"\n{more}'}


def upstream(keys):
    return {"upstream.default": BARE["upstream.default"].replace("via = false", "") + "\n" + keys}


FEATURES = [
    Feature("nothing: how far to trust the others", {}),
    Feature("all that is on as installed", {
        "upstream.default.retry": OFF, "upstream.default.circuit_breaker": OFF, "[route]": OFF, "security_headers": OFF,
        "upstream.default": BARE["upstream.default"].replace("via = false", ""),
        "listener.http": LISTENER, "rate_limit": PLENTY, "log": 'format = "json"'}),
    Feature('log.access = "errors"', log("errors")),
    Feature('log.access = "all", JSON to a pipe', log("all"), "pipe"),
    Feature('log.access = "all", to the journal', log("all", "journal"), "journal"),
    Feature('log.access = "all" with log.path, to the journal', log("all", "journal", "path = true"), "journal"),
    Feature('rate_limit.key = "all"', {"rate_limit": PLENTY + 'key = "all"'}),
    Feature('rate_limit.key = "ip"', {"rate_limit": PLENTY + 'key = "ip"'}),
    Feature('rate_limit.key = "user"', {"rate_limit": PLENTY + 'key = "user"'}),
    Feature('rate_limit.key = "unit"', {"rate_limit": PLENTY + 'key = "unit"'}),
    Feature('rate_limit.key = "header:X-Key"', {"rate_limit": PLENTY + 'key = "header:X-Key"'}),
    Feature("route.rate_limit", {"[route]": BARE["[route]"] + '\nrate_limit.requests_per_second = 10000000\nrate_limit.burst = 10000000'}),
    Feature("rate_limit.shared, a Redis on this host", {"rate_limit": PLENTY + 'shared = "redis://{host}:{redis}/0"'}, "redis"),
    Feature("listener.max_connections_per_caller", {"listener.http": BARE["listener.http"] + "\nmax_connections_per_caller = 5000"}),
    Feature('listener.browser_requests = "deny"', {"listener.http": LISTENER}),
    Feature("a Unix socket instead of TCP for callers", {"listener.http": 'address = "unix:{own}/http.sock"\nbrowser_requests = "allow"'}, "unix"),
    Feature("21 routes instead of one", {"[route]": BARE["[route]"] + "".join(f'\n[[route]]\npath_prefix = "/route-{i}"' for i in range(20))}),
    Feature("route.request_headers: set, add, remove", edits("request_headers")),
    Feature("route.response_headers: set, add, remove", edits("response_headers")),
    Feature("route.rewrite_location", {"[route]": 'path_prefix = "/"'}),
    Feature('upstream.forwarded = "add"', upstream('via = false\nforwarded = "add"')),
    Feature("upstream.via", upstream("via = true")),
    Feature("security_headers", {"security_headers": "enabled = true"}),
    Feature('three endpoints, balance = "least_requests"', {"upstream.default": ENDPOINTS + 'balance = "least_requests"'}),
    Feature('three endpoints, balance = "round_robin"', {"upstream.default": ENDPOINTS + 'balance = "round_robin"'}),
    Feature("upstream.retry", {"upstream.default.retry": OFF}),
    Feature("upstream.circuit_breaker", {"upstream.default.circuit_breaker": OFF}),
    Feature('upstream.health_check, interval = "1s"', {"upstream.default.health_check": 'path = "/"\ninterval = "1s"\ntimeout = "1s"\nexpect = [200]'}),
]


# A reader in journald's place: what journald itself does with a record is its own affair. Its queue is as long as systemd makes it.
READER = """
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
b = bytearray(1 << 20)
while True:
    s.recv_into(b)
"""
QUEUE = 512  # net.unix.max_dgram_qlen under systemd

# Gives a command a /run of its own, where journald's socket is the reader's.
IN_PLACE = """
mount -t tmpfs none /run && mkdir -p /run/systemd/journal && ln -s "$0" /run/systemd/journal/socket && exec "$@"
"""


class Variant:
    """The program with one feature, shown to relay."""

    def __init__(self, number, feature, program, ground):
        self.feature = feature
        self.ground = ground
        self.costs = []        # CPU of each visit, in microseconds per exchange
        self.differences = []  # to the bare ones before and after it
        own = os.path.join(ground.folder, f"feature-{number}")
        os.makedirs(own)
        port = free_port()
        config = os.path.join(own, "config.toml")
        with open(config, "w") as f:
            f.write(feature.configuration(dict(
                folder=ground.folder, own=own, host=HOST, listen=f"{HOST}:{port}", upstream=ground.upstream.ports["kept"],
                name=UPSTREAM_NAME, redis=ground.redis_port)))
        self.url = ["-B", f"unix:{own}/http.sock"] if "unix" in feature.needs else []
        self.url.append(f"http://{HOST}:{port}/")
        argv = [program, "run", "--config", config]
        if "journal" in feature.needs:
            argv = ["unshare", *namespace("--mount"), "--propagation", "private", "sh", "-c", IN_PLACE, ground.journal, *argv]
        elif "pipe" in feature.needs:
            argv = ["sh", "-c", 'exec "$@" 2>"$0"', ground.pipe, *argv]
        self.process = Process(argv, ground.o.proxy_cpus, os.path.join(own, "log"))
        ground.processes.append(self.process)
        end = time.monotonic() + 10
        while self.answered(64, 640) < 640:
            if time.monotonic() > end or not self.process.running():
                raise RuntimeError(f"{feature.title}: it does not relay: {self.process.said()}")
            time.sleep(0.1)

    def answered(self, connections, n):
        """Makes n requests, and returns how many got 200."""
        said = run_tool(["h2load", "--h1", "-t1", f"-c{connections}", f"-n{n}", "-H", "X-Key: bench", *self.url],
                        self.ground.o.load_cpus, 60)
        return int(re.search(r"status codes: (\d+) 2xx", said).group(1))

    def visit(self, n):
        """CPU of one visit in microseconds per exchange."""
        pids = self.process.pids()
        before = cpu_seconds(pids)
        good = self.answered(self.ground.o.connections, n)
        if good < n:
            raise RuntimeError(f"{self.feature.title}: {n - good} of {n} requests failed: {self.process.said()}")
        cost = (cpu_seconds(pids) - before) / n * 1e6
        self.costs.append(cost)
        return cost


def namespace(*kinds):
    return (*kinds, *(() if os.geteuid() == 0 else ("--user", "--map-root-user")))


class Ground:
    """What all variants share: folder, upstream, and the other ends of log and store."""

    def __init__(self, o, folder, processes):
        self.o, self.folder = o, folder
        self.processes = processes  # everything that was started; whoever made the list ends them
        self.upstream = Upstream(folder, o.load_cpus, 1)
        self.processes.append(self.upstream.process)
        self.redis_port = free_port()
        self.journal = os.path.join(folder, "journal.sock")
        self.pipe = os.path.join(folder, "pipe")
        os.mkfifo(self.pipe)
        self.start("sh", "-c", 'exec cat 0<>"$0" >/dev/null', self.pipe)
        self.missing = {}
        if subprocess.run(["unshare", *namespace("--mount", "--net"), "true"], stderr=subprocess.DEVNULL).returncode == 0:
            # The length of a socket's queue belongs to a network namespace, and no other needs it changed.
            self.start("unshare", *namespace("--net"), "sh", "-c", f'echo {QUEUE} >/proc/sys/net/unix/max_dgram_qlen; exec "$@"', "sh",
                       sys.executable, "-c", READER, self.journal)
        else:
            self.missing["journal"] = "this user may not make namespaces"
        if shutil.which("redis-server"):
            self.start("redis-server", "--bind", HOST, "--port", str(self.redis_port), "--save", "", "--appendonly", "no", "--dir", folder)
        else:
            self.missing["redis"] = "there is no redis-server"

    def start(self, *argv):
        self.processes.append(Process(argv, self.o.load_cpus, os.path.join(self.folder, f"{len(self.processes)}.log")))

    def foreign_seconds(self):
        """CPU time of the machine that neither we nor what we started have used."""
        busy, stolen = machine_seconds()
        return busy + stolen - own_seconds() - sum(cpu_seconds(p.pids()) for p in self.processes)


def spread(differences):
    """Half of the range in which the median lies with 95 % confidence, whatever the differences are distributed like; None
    when they are too few for that."""
    d, n = sorted(differences), len(differences)
    if n < 6:
        return None
    reach = 0.98 * math.sqrt(n)
    low, high = max(0, math.floor(n / 2 - reach)), min(n - 1, math.ceil(n / 2 + reach))
    return (d[high] - d[low]) / 2


def calm(costs):
    """The lower quartile: what a visit costs when little else runs."""
    return statistics.quantiles(costs, n=4, method="inclusive")[0]


def measure_features(o, program, ground, say):
    """Visits the variants again and again until the time is over. Returns them, the bare one first, and the share of the
    machine that others used meanwhile."""
    bare = Variant(0, Feature("bare", {}), program, ground)
    variants = []
    for number, feature in enumerate(FEATURES, 1):
        why = next((ground.missing[n] for n in feature.needs if n in ground.missing), None)
        if o.features and not re.search(o.features, feature.title):
            continue
        if why:
            say(f"without {feature.title}: {why}")
            continue
        variants.append(Variant(number, feature, program, ground))
    begun, foreign, number = time.monotonic(), ground.foreign_seconds(), 0
    try:
        took = 0
        while number < 3 or time.monotonic() - begun + took < o.max_seconds:
            started = time.monotonic()
            one_round(o, bare, random.Random(number).sample(variants, len(variants)))
            if number == 0:  # connections were opened, and memory grew to what it is from now on
                for v in [bare, *variants]:
                    v.costs, v.differences = [], []
            number += 1
            took = time.monotonic() - started
            say(f"{time.monotonic() - begun:5.0f} s  round {number}")
    except KeyboardInterrupt:
        if not all(v.differences for v in variants):
            raise
        say("interrupted; this is what there is:")
    others = (ground.foreign_seconds() - foreign) / (time.monotonic() - begun) / os.cpu_count()
    return [bare, *variants], max(0, others)


def one_round(o, bare, order):
    last = bare.visit(o.requests)
    for i in range(0, len(order), 3):
        costs = [v.visit(o.requests) for v in order[i:i + 3]]
        now = bare.visit(o.requests)
        for v, cost in zip(order[i:i + 3], costs):
            v.differences.append(cost - (last + now) / 2)
        last = now


def print_features(variants):
    bare = variants[0]
    rows = [["feature", "µs more", "±", "calm"], [f"none of these: {median(bare.costs):.1f} µs, calm {calm(bare.costs):.1f}", "", "", ""]]
    for v in variants[1:]:
        range_ = spread(v.differences)
        rows.append([v.feature.title, f"{median(v.differences):+.2f}", "-" if range_ is None else f"{range_:.2f}",
                     f"{calm(v.costs) - calm(bare.costs):+.2f}"])
    print_table(rows)
