#!/bin/bash
# Caddy; CADDY names the binary. HTTP/1.1 to the upstream, like everyone here.
program=${CADDY:-$(command -v caddy)}
case $1 in
version)
  [ -x "$program" ] || { echo "there is no caddy: set CADDY to the binary"; exit 1; }
  echo "caddy $("$program" version)" ;;
start)
  export HOME=$DIR XDG_CONFIG_HOME=$DIR XDG_DATA_HOME=$DIR
  cat >"$DIR/Caddyfile" <<END
{
  admin off
  auto_https off
  persist_config off
  log {
    level ERROR
  }
  servers {
    protocols h1
    timeouts {
      idle 10m
    }
  }
}
http://:${LISTEN##*:} {
  bind ${LISTEN%:*}
  reverse_proxy https://$UPSTREAM {
    header_up Host $SERVER_NAME
    transport http {
      versions 1.1
      tls_client_auth $CERTIFICATE $KEY
      tls_trust_pool file {
        pem_file $CA
      }
      tls_server_name $SERVER_NAME
      compression off
      keepalive 10m
      keepalive_idle_conns 1024
      keepalive_idle_conns_per_host 1024
    }
  }
}
END
  exec "$program" run --config "$DIR/Caddyfile" --adapter caddyfile ;;
*) echo "usage: $0 version|start"; exit 2 ;;
esac
