#!/bin/bash
# This project's proxy; MTLS_PROXY names the binary. Metrics, records, limits, the browser guard: all as installed. Only the
# limits that would refuse the load are raised, and as many idle connections kept as the others keep.
program=${MTLS_PROXY:-$(command -v mtls-proxy)}
case $1 in
version)
  [ -x "$program" ] || { echo "there is no mtls-proxy: set MTLS_PROXY to the binary"; exit 1; }
  "$program" version 2>&1 | head -n 1 ;;
start)
  cat >"$DIR/config.toml" <<END
[identity.default]
certificate = "$CERTIFICATE"
key = "$KEY"

[trust.default]
ca = "$CA"

[upstream.default]
url = "https://$UPSTREAM"
server_name = "$SERVER_NAME"

[upstream.default.pool]
max_idle = 1024

[listener.http]
address = "$LISTEN"

[limits]
max_connections = 12000
max_concurrent_requests = 10000
max_request_body = "1024MiB"

[rate_limit]
requests_per_second = 10000000
burst = 10000000

[admin]
address = ""
socket = "$DIR/admin.sock"
END
  exec "$program" run --config "$DIR/config.toml" ;;
*) echo "usage: $0 version|start"; exit 2 ;;
esac
