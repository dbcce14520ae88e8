"""The ground that all proxies are measured on: throwaway certificates, the upstream, and the proxies themselves."""
import os
import re
import socket
import subprocess
import time

from processes import Process

HOST = "127.0.0.1"
HOSTS = (HOST, "127.0.0.2", "127.0.0.3")  # where the upstream keeps connections: some want several endpoints
UPSTREAM_NAME = "upstream.test"
MIB = 1 << 20
PEERS = os.path.join(os.path.dirname(os.path.realpath(__file__)), "peers")


def make_certificates(folder, days=7):
    """A P-256 CA and one certificate each for server and client, good for a week or so many days."""
    def openssl(*args):
        subprocess.run(("openssl",) + args, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.crt", "-days", str(days), "-subj", "/CN=throwaway CA",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    for who, usage, names in (("server", "serverAuth", f"DNS:{UPSTREAM_NAME},IP:{HOST}"), ("client", "clientAuth", "DNS:client.test")):
        with open(f"{folder}/{who}.ext", "w") as f:
            f.write(f"basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage={usage}\nsubjectAltName={names}\n")
        openssl("req", *new_key, "-keyout", f"{who}.key", "-out", f"{who}.csr", "-subj", f"/CN={who}")
        openssl("x509", "-req", "-in", f"{who}.csr", "-out", f"{who}.crt", "-days", str(days), "-extfile", f"{who}.ext",
                "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
        os.chmod(f"{folder}/{who}.key", 0o600)
    with open(f"{folder}/client.pem", "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as both:
        for part in ("client.crt", "client.key"):
            with open(f"{folder}/{part}") as f:
                both.write(f.read())


class Upstream:
    """One nginx worker that speaks TLS 1.3 and demands a client certificate, on a port for each way of ending a connection:
    kept alive; closed after each response with nothing to resume; closed after each response, with session tickets."""

    def __init__(self, folder, cpus, body_mib):
        self.ports = {how: free_port() for how in ("kept", "closed", "resumed")}
        with open(f"{folder}/large", "wb") as f:
            block = os.urandom(MIB)
            for _ in range(body_mib):
                f.write(block)
        os.chmod(folder, 0o755)  # the worker may run as another user
        with open(f"{folder}/upstream.conf", "w") as f:
            f.write(self._configuration(folder, body_mib))
        self.process = Process(["nginx", "-c", f"{folder}/upstream.conf", "-p", folder, "-e", f"{folder}/upstream.err"],
                               cpus, f"{folder}/upstream.log")
        if not answers(self.ports["kept"], self.process):
            self.process.stop()
            raise SystemExit("the upstream does not start: " + self.process.said())

    def _configuration(self, folder, body_mib):
        # /sink has to read a body to its end before it answers. Only passing a request on does that, so it passes it on,
        # without the body, to a server that says yes to everything.
        locations = f"""
      add_header X-Client-Verify $ssl_client_verify;
      location / {{ default_type text/plain; return 200 "{'.' * 1024}"; }}
      location = /refused {{ default_type text/plain; return 404 "{'.' * 1024}"; }}
      location = /large {{ root {folder}; }}
      location = /sink {{
        client_body_buffer_size {body_mib + 1}m; proxy_pass_request_body off; proxy_set_header Content-Length "";
        proxy_pass http://unix:{folder}/yes.sock;
      }}"""
        listens = " ".join(f"listen {host}:{self.ports['kept']} ssl backlog=4096;" for host in HOSTS)
        temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return f"""
daemon off; worker_processes 1; worker_rlimit_nofile 20000; {"user root;" if os.geteuid() == 0 else ""}
pid {folder}/upstream.pid; error_log {folder}/upstream.err error;
events {{ worker_connections 9500; }}
http {{
  access_log off; {temporary}
  client_max_body_size 0; lingering_close off; output_buffers 2 256k; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 600s;
  ssl_protocols TLSv1.3; ssl_verify_client on; ssl_client_certificate {folder}/ca.crt;
  ssl_certificate {folder}/server.crt; ssl_certificate_key {folder}/server.key; ssl_buffer_size 16k;
  server {{ {listens} {locations}
  }}
  server {{ listen {HOST}:{self.ports["closed"]} ssl backlog=4096; keepalive_timeout 0;
      ssl_session_cache off; ssl_session_tickets off; {locations}
  }}
  server {{ listen {HOST}:{self.ports["resumed"]} ssl backlog=4096; keepalive_timeout 0; {locations}
  }}
  server {{ listen unix:{folder}/yes.sock; location / {{ return 200 "read\\n"; }} }}
}}
"""


class Peer:
    """One of the proxies compared: a script in peers/, and what its environment adds."""

    def __init__(self, name, script=None, **env):
        self.name = name
        self.script = os.path.join(PEERS, (script or name) + ".sh")
        self.env = env
        self.version = ""

    @classmethod
    def named(cls, name):
        """NAME-tree is NAME out of the Debian tree that BENCH_TREE names."""
        if name.endswith("-tree"):
            return cls(name, name.removesuffix("-tree"), TREE=os.environ.get("BENCH_TREE", "/nonexistent"))
        return cls(name)

    def missing(self):
        """Why this proxy cannot run here; empty when it can."""
        if not os.path.exists(self.script):
            return f"there is no peers/{os.path.basename(self.script)}"
        asked = subprocess.run([self.script, "version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, timeout=30, env=dict(os.environ, **self.env))
        first = (asked.stdout.strip().splitlines() or ["it says nothing"])[0]
        if asked.returncode != 0:
            return first
        self.version = first
        return ""


class Proxy:
    """A running peer, shown to relay over mutual TLS before anything is measured."""

    def __init__(self, peer, folder, upstream_port, cpus):
        self.peer = peer
        self.port = free_port()
        own = os.path.join(folder, f"{peer.name}.{upstream_port}")
        os.makedirs(own)
        env = dict(os.environ, **peer.env, LISTEN=f"{HOST}:{self.port}", UPSTREAM=f"{HOST}:{upstream_port}", SERVER_NAME=UPSTREAM_NAME,
                   CERTIFICATE=f"{folder}/client.crt", KEY=f"{folder}/client.key", CERTIFICATE_AND_KEY=f"{folder}/client.pem",
                   CA=f"{folder}/ca.crt", DIR=own)
        self.process = Process([peer.script, "start"], cpus, os.path.join(own, "log"), env)
        try:
            if not answers(self.port, self.process):
                raise RuntimeError("it does not start")
            head, body = get(self.port, "/")
            if not (head.startswith("HTTP/1.1 200 ") and len(body) == 1024 and "x-client-verify: success" in head.lower()):
                raise RuntimeError(f"it does not relay: {head[:300]!r} and {len(body)} bytes of body")
        except (OSError, RuntimeError) as e:
            self.process.stop()
            raise RuntimeError(f"{e}\n{self.process.said()}") from e


def free_port():
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def answers(port, process, seconds=10):
    """Waits until something listens on port, and reports whether it came to that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.running():
        try:
            connect(port).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def connect(port):
    return socket.create_connection((HOST, port), 20)


def request(method, path, *fields):
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {HOST}") + fields + ("", "")).encode()


def get(port, path):
    with connect(port) as s:
        s.sendall(request("GET", path))
        head, rest = read_head(s)
        return head, read_body(s, head, rest)


def read_head(s):
    data = b""
    while b"\r\n\r\n" not in data:
        more = s.recv(65536)
        if not more:
            raise OSError("the connection ended before the head did")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


def content_length(head):
    m = re.search(r"(?im)^content-length:[ \t]*(\d+)", head)
    return int(m.group(1)) if m else None


def read_body(s, head, data):
    """Reads a small body to its end, by Content-Length or as chunks, whose framing it leaves in."""
    length = content_length(head)
    while (len(data) < length) if length is not None else not data.endswith(b"0\r\n\r\n"):
        more = s.recv(65536)
        if not more:
            raise OSError("the connection ended before the body did")
        data += more
    return data
