#!/bin/bash
# HAProxy in HTTP mode: one thread, connections to the upstream shared and kept.
. "${0%/*}/tree.sh"
case $1 in
version) is_there haproxy || exit 1; in_tree haproxy -v | head -n 1 ;;
start)
  cat >"$DIR/haproxy.cfg" <<END
global
  nbthread 1
  maxconn $(($(ulimit -Hn) > 24100 ? 12000 : 8000))
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 10s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
frontend callers
  bind $LISTEN backlog 4096
  default_backend up
backend up
  http-request set-header Host $SERVER_NAME
  server one $UPSTREAM ssl ssl-min-ver TLSv1.3 crt $CERTIFICATE_AND_KEY ca-file $CA verify required verifyhost $SERVER_NAME sni str($SERVER_NAME) pool-max-conn -1 pool-purge-delay 600s
END
  in_tree haproxy -db -f "$DIR/haproxy.cfg" ;;
*) echo "usage: $0 version|start"; exit 2 ;;
esac
