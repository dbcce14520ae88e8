#!/bin/bash
# shellcheck disable=SC2317 # claims are called by their names
#
# The same life for the .rpm: rpm's scriptlets under a real systemd. The tree is
# Debian's, whose rpm has no database of what is installed, hence --nodeps.
# shellcheck source=packaging/lab/claims.sh
source /lab/claims.sh
# shellcheck source=packaging/lab/service.sh
source /lab/service.sh

preset=/etc/systemd/system-preset/10-lab.preset

the_package_follows_a_preset_that_disables() {
  mkdir -p /etc/systemd/system-preset
  echo 'disable mtls-proxy.*' >"$preset"
  rpm --install --nodeps /packages/current/*.rpm
  same sockets "$(systemctl is-enabled mtls-proxy.socket || true)" disabled
  same sockets "$(state mtls-proxy.socket)" inactive
  same service "$(state mtls-proxy.service)" inactive
  rpm --erase mtls-proxy
  rm "$preset"
}

the_package_follows_a_preset_that_enables() {
  echo 'enable mtls-proxy.socket' >"$preset"
  echo 'disable mtls-proxy.service' >>"$preset"
  rpm --install --nodeps /packages/current/*.rpm
  same 'sockets at boot' "$(systemctl is-enabled mtls-proxy.socket)" enabled
  same sockets "$(state mtls-proxy.socket)" active
  same service "$(state mtls-proxy.service)" inactive
}

files_belong_to_the_group() {
  local path
  for path in /etc/mtls-proxy /etc/mtls-proxy/{conf.d,tls,config.toml}; do
    same "$path" "$(stat --format=%U:%G "$path")" root:mtls-proxy
  done
  rpm --verify --nodeps mtls-proxy
}

an_upgrade_under_load_refuses_and_loses_nobody() {
  local socket pid
  seen_serial
  socket=$(property mtls-proxy.socket InvocationID)
  pid=$(property mtls-proxy.service MainPID)
  under_load -- rpm --upgrade --nodeps /packages/next/*.rpm
  [[ $(property mtls-proxy.service MainPID) != "$pid" ]]
  same 'the run of the sockets' "$(property mtls-proxy.socket InvocationID)" "$socket"
}

upgrades_under_load_lose_no_kept_connection() { upgrade_keeps_connections there_and_back; }
there_and_back() {
  rpm --upgrade --force --nodeps /packages/current/*.rpm
  rpm --upgrade --nodeps /packages/next/*.rpm
}

a_removal_stops_everything_and_keeps_what_was_configured() {
  echo '# written by somebody' >>/etc/mtls-proxy/config.toml
  rpm --erase mtls-proxy
  fails port_is_open 8080
  fails pgrep --exact mtls-proxy
  ls -l "$drop_ins/lab.toml" /etc/mtls-proxy/tls/client.key
  grep somebody /etc/mtls-proxy/config.toml.rpmsave
  same links "$(find /etc/systemd -name 'mtls-proxy*')" ''
}

a_port_that_is_taken_does_not_fail_the_installation() {
  systemd-run --quiet --unit=squatter --service-type=exec socat TCP-LISTEN:8080,bind=127.0.0.1,reuseaddr,fork /dev/null
  within 5 port_is_open 8080
  rpm --install --nodeps /packages/current/*.rpm
  rpm --query mtls-proxy
  systemctl stop squatter.service
  rpm --erase mtls-proxy
}

the_package_installs_and_goes_where_no_systemd_runs() {
  unshare --mount --pid --fork --mount-proc bash -euxc '
    mount -t tmpfs tmpfs /run
    rpm --install --nodeps /packages/current/*.rpm
    mtls-proxy version
    rpm --upgrade --nodeps /packages/next/*.rpm
    rpm --erase mtls-proxy'
  systemctl daemon-reload
}

claim the_package_follows_a_preset_that_disables
claim the_package_follows_a_preset_that_enables || conclude
claim files_belong_to_the_group
claim a_request_through_the_socket_shows_the_upstream_our_certificate || conclude
claim the_control_socket_is_for_root_and_its_group_alone
claim a_unix_socket_belongs_to_its_group_and_not_to_those_who_may_reload
claim the_service_is_exposed_to_1_4_at_most
claim a_reload_presents_the_new_certificate
claim a_refused_reload_names_file_and_line_and_requests_go_on
claim five_restarts_under_load_refuse_and_lose_nobody
claim an_upgrade_under_load_refuses_and_loses_nobody
if [[ $connections_are_kept == yes ]]; then claim upgrades_under_load_lose_no_kept_connection; fi
claim a_removal_stops_everything_and_keeps_what_was_configured
claim a_port_that_is_taken_does_not_fail_the_installation
claim the_package_installs_and_goes_where_no_systemd_runs
conclude
