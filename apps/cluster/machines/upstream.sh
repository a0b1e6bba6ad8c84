#!/bin/bash
# The first process of the registry that images come from: docker-registry, and nginx in front of it for TLS, for a log of
# bytes, and for a bound of speed. Environment: RUN, BYTES_PER_SECOND (of each connection).
set -euo pipefail
mount -t proc proc /proc
directory=$RUN/upstream
mkdir -p "$directory/data" "$directory/tmp"
cat >"$directory/registry.yml" <<YAML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $directory/data}, delete: {enabled: true}}
http: {addr: "127.0.0.1:5000", relativeurls: true}
YAML
cat >"$directory/nginx.conf" <<CONF
user root;
daemon off;
pid $directory/nginx.pid;
error_log $directory/error.log;
events {}
http {
  log_format bytes '\$remote_addr \$request_method \$request_uri \$status \$body_bytes_sent';
  access_log $directory/access.log bytes;
  client_body_temp_path $directory/tmp;
  proxy_temp_path $directory/tmp;
  fastcgi_temp_path $directory/tmp;
  uwsgi_temp_path $directory/tmp;
  scgi_temp_path $directory/tmp;
  client_max_body_size 0;
  server {
    listen 443 ssl;
    listen [::]:443 ssl;
    ssl_certificate $RUN/pki/upstream.crt;
    ssl_certificate_key $RUN/pki/upstream.key;
    location / {
      proxy_pass http://127.0.0.1:5000;
      proxy_set_header Host \$host;
      proxy_buffering off;
      proxy_request_buffering off;
      limit_rate $BYTES_PER_SECOND;
    }
  }
}
CONF
docker-registry serve "$directory/registry.yml" >"$directory/registry.log" 2>&1 &
exec nginx -c "$directory/nginx.conf"
