#!/bin/bash
# nginx, as one would set it up for this by hand: one worker, connections to the upstream kept, no temporary files.
. "${0%/*}/tree.sh"
case $1 in
version) is_there nginx || exit 1; in_tree nginx -v 2>&1 ;;
start)
  cat >"$DIR/nginx.conf" <<END
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
$([ "$(id -u)" = 0 ] && echo "user root;")
pid $DIR/pid;
error_log $DIR/error.log error;
events { worker_connections 19500; }
http {
  access_log off;
  client_body_temp_path $DIR/body;
  proxy_temp_path $DIR/proxy;
  fastcgi_temp_path $DIR/fastcgi;
  uwsgi_temp_path $DIR/uwsgi;
  scgi_temp_path $DIR/scgi;
  upstream up {
    server $UPSTREAM;
    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
  }
  server {
    listen $LISTEN backlog=4096;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_max_body_size 0;
    location / {
      proxy_pass https://up;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $SERVER_NAME;
      proxy_ssl_protocols TLSv1.3;
      proxy_ssl_certificate $CERTIFICATE;
      proxy_ssl_certificate_key $KEY;
      proxy_ssl_trusted_certificate $CA;
      proxy_ssl_verify on;
      proxy_ssl_name $SERVER_NAME;
      proxy_ssl_server_name on;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
      proxy_buffer_size 16k;
      proxy_buffers 16 32k;
      proxy_busy_buffers_size 64k;
    }
  }
}
END
  in_tree nginx -c "$DIR/nginx.conf" -p "$DIR" -e "$DIR/error.log" ;;
*) echo "usage: $0 version|start"; exit 2 ;;
esac
