"""Processes of a run: starting them on their CPUs, their CPU time and memory, and the end of them."""
import ctypes
import os
import signal
import subprocess
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _in_child(cpus):
    def run():
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # if we are killed, they go with us
        os.sched_setaffinity(0, cpus)
    return run


def run_tool(argv, cpus, limit):
    """Runs a load generator to its end on cpus, for at most limit seconds, and returns what it printed."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=limit, preexec_fn=_in_child(cpus))
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stdout[-500:].strip()}")
    return done.stdout


class Process:
    """A server of the run, with the processes it starts."""

    def __init__(self, argv, cpus, log, env=None):
        self.log = log
        with open(log, "ab") as out:
            self._popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env,
                                           preexec_fn=_in_child(cpus))

    def running(self):
        return self._popen.poll() is None

    def said(self):
        with open(self.log, errors="replace") as f:
            return f.read()[-2000:].strip()

    def pids(self):
        """The process and all that descend from it."""
        children = {}
        for entry in os.listdir("/proc"):
            fields = _stat(entry) if entry.isdigit() else None
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry))
        found = [self._popen.pid]
        for pid in found:  # grows while we walk it
            found.extend(children.get(pid, ()))
        return found

    def stop(self):
        if not self.running():
            return
        pids = self.pids()
        self._popen.terminate()
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait(5)
        for pid in pids[1:]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def _stat(pid):
    """The fields of /proc/PID/stat from the third, the state, on; None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            line = f.read()
    except OSError:
        return None
    return line[line.rindex(")") + 2:].split()


def cpu_seconds(pids):
    """User and system time that pids, and the children they have waited for, have used."""
    total = 0.0
    for pid in pids:
        fields = _stat(pid)
        if fields is None:
            continue
        try:
            # A process's own CPU clock (clock_getcpuclockid) counts nanoseconds where stat counts ticks.
            total += time.clock_gettime(~pid << 3 | 2)
        except OSError:
            total += (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
        total += (int(fields[13]) + int(fields[14])) / TICKS_PER_SECOND
    return total


def memory_mib(pids):
    """(PSS, RSS) of pids together. PSS shares a page out among the processes that map it."""
    pss = rss = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                for line in f:
                    if line.startswith("Pss:"):
                        pss += int(line.split()[1])
                    elif line.startswith("Rss:"):
                        rss += int(line.split()[1])
        except OSError:
            continue
    return pss / 1024, rss / 1024


def machine_seconds():
    """(busy, stolen) CPU time of the whole machine since it started."""
    with open("/proc/stat") as f:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(x) for x in f.readline().split()[1:9])
    return (user + nice + system + irq + softirq) / TICKS_PER_SECOND, steal / TICKS_PER_SECOND


def own_seconds():
    """CPU time of this script and of the load generators that it ran to their end."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system
